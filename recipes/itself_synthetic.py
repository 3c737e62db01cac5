"""ITSELF on rendered pedestrians, with towers that train on a CPU in minutes.

The image tower has no attention layers, so the similarity of its cells to the embedding selects
them; the rollout is over the two layers of the text tower.
"""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.methods import ClipConfig, ItselfConfig
from finegrain.methods.itself import Narrowing
from finegrain.models.rollout import Rollout


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("tiny_synthetic.py"))
    published = load_recipe(Path(__file__).with_name("itself_cuhk_pedes.py"))
    towers = parent.method
    assert isinstance(towers, ClipConfig)
    return replace(
        parent,
        name="itself_synthetic",
        about="ITSELF on rendered pedestrians, minutes on a CPU",
        method=ItselfConfig(
            image=towers.image,
            text=towers.text,
            global_dim=towers.embed_dim,
            selected_dim=2 * towers.embed_dim,
            rollout=Rollout(layers=(0, 1)),
            narrowing=Narrowing(steps=60),
            identities=2000,
        ),
        losses=published.losses,
        items_per_identity=published.items_per_identity,
        expected=None,
    )
