"""IRRA's losses on rendered pedestrians, with towers that train on a CPU in minutes."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.methods import ClipConfig, IrraConfig

PEOPLE = 2000
"""Number of people in the training split of the parent recipe."""


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("tiny_synthetic.py"))
    towers = parent.method
    assert isinstance(towers, ClipConfig)
    return replace(
        parent,
        name="irra_synthetic",
        about="IRRA's losses on rendered pedestrians, minutes on a CPU",
        method=IrraConfig(
            image=towers.image,
            text=towers.text,
            embed_dim=towers.embed_dim,
            identities=PEOPLE,
            fusion_depth=1,
        ),
        losses={"sdm": 1.0, "id": 1.0, "mlm": 1.0},
        expected=None,
    )
