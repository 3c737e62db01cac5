"""Index a folder of pictures and search it by text and by picture.

python examples/search_folder.py model.plan photos/ "woman in red coat"
"""

import argparse
from pathlib import Path

import finegrain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("query")
    parser.add_argument("--grid", type=Path, default=Path("matches.png"))
    arguments = parser.parse_args()

    with finegrain.Searcher(arguments.plan) as searcher:
        print(searcher.add(arguments.folder))

        matches = searcher.query(arguments.query, k=10)
        print(matches)
        matches.save(arguments.grid)
        print(f"the pictures are in {arguments.grid}")

        similar = searcher.query(Path(matches[0].image), k=5)
        print(f"\npictures similar to {matches[0].image}:\n{similar}")


if __name__ == "__main__":
    main()
