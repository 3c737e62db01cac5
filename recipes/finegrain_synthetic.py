"""finegrain's own training on rendered pedestrians, in minutes on a CPU.

The losses are those that helped in ``benchmarks/ablate.py flagship``. The momentum copy changes
four times as fast as with real data, since a run has only a few hundred steps.
"""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.methods import IrraConfig, MinedConfig


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("irra_synthetic.py"))
    irra = parent.method
    assert isinstance(irra, IrraConfig)
    return replace(
        parent,
        name="finegrain_synthetic",
        about="hard negatives from a momentum queue, on rendered pedestrians, minutes on a CPU",
        method=MinedConfig(
            image=irra.image,
            text=irra.text,
            embed_dim=irra.embed_dim,
            identities=irra.identities,
            fusion_depth=irra.fusion_depth,
            decay=0.98,
            queue=2048,
        ),
        losses={"tal": 1.0, "queue": 1.0},
    )
