"""Train a recipe, evaluate it, export it and search with the plan.

python examples/train_and_export.py recipes/tiny_synthetic.py --tiny
"""

import argparse
from pathlib import Path

import finegrain
from finegrain.exporters import load_profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--profile", type=Path, default=Path("export/onnx_fp32.py"))
    parser.add_argument("--out", type=Path, default=Path("runs/example"))
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it works")
    arguments = parser.parse_args()

    recipe = finegrain.load_recipe(arguments.recipe)
    if arguments.tiny:
        recipe = recipe.tiny()
    run = finegrain.train(recipe, arguments.out)
    print(finegrain.evaluate(run.folder, split="test"))

    # The export compares the plan with the trained model, and writes nothing that ranks otherwise.
    plan = arguments.out / "model.plan"
    print(finegrain.export(run.folder, load_profile(arguments.profile), plan))
    with finegrain.Searcher(plan) as searcher:
        pictures = [sample.image for sample in recipe.data.splits()["test"].samples]
        print(searcher.add(pictures))
        print(searcher.query("woman in red coat", k=5))


if __name__ == "__main__":
    main()
