"""RDE on rendered pedestrians, with towers that train on a CPU in minutes."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.methods import ClipConfig, RdeConfig


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("tiny_synthetic.py"))
    towers = parent.method
    assert isinstance(towers, ClipConfig)
    return replace(
        parent,
        name="rde_synthetic",
        about="RDE on rendered pedestrians, minutes on a CPU",
        method=RdeConfig(
            image=towers.image,
            text=towers.text,
            global_dim=towers.embed_dim,
            selected_dim=2 * towers.embed_dim,
            # Towers with random weights cannot detect wrong pairs, and here every caption is
            # correct.
            consensus=None,
        ),
        losses={"bge": 1.0, "tse": 1.0},
        expected=None,
    )
