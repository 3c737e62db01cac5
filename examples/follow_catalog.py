"""Keep a gallery equal to a shop's table, and search the products below a price.

Run it again whenever the table changes: new and changed pictures are encoded, changed prices are
set without encoding, and products that are gone are deleted.

    python examples/follow_catalog.py model.plan catalog.csv "red dress" --below 80
"""

import argparse
from pathlib import Path

import finegrain
from finegrain.data.catalog import read_catalog


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("table", type=Path, help="CSV, JSON, Excel or Parquet")
    parser.add_argument("query")
    parser.add_argument("--pid-column", default="sku", help="column of the product's key (sku)")
    parser.add_argument("--below", type=float, help="highest price")
    arguments = parser.parse_args()

    splits = read_catalog(arguments.table, pid_column=arguments.pid_column)
    with finegrain.Searcher(arguments.plan) as searcher:
        for split in splits.values():
            for problem in split.problems:
                print(f"left out: {problem}")
            print(
                searcher.add_samples(
                    split.samples, sync=True, source=arguments.table, problems=split.problems
                )
            )
        where = None if arguments.below is None else f"price < {arguments.below:g}"
        # The best picture of each product.
        print(searcher.query(arguments.query, k=10, where=where, group_by="pid"))


if __name__ == "__main__":
    main()
