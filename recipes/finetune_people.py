"""Fine-tune a published CLIP on one's own pictures of people.

The table has the columns ``image``, ``caption`` and ``pid``: pictures with the same pid show the
same person, and are not used as each other's negatives::

    finegrain train finetune_people --set data.root=people

Tall crops are padded to a square, because CLIP's own preprocessing would cut off heads and feet.
The rest is as in ``finetune_catalog``.
"""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.data.datasets import Catalog


def recipe() -> Recipe:
    return replace(
        load_recipe(Path(__file__).with_name("finetune_catalog.py")),
        name="finetune_people",
        about="a published CLIP, fine-tuned on pictures of people of one's own",
        data=Catalog(root="data/people", table="people.csv", pid_column="pid"),
        fit="pad",
    )
