"""finegrain's own training on CUHK-PEDES: the towers of IRRA with mined hard negatives.

It starts from OpenAI's CLIP: put ``ViT-B-16.pt`` at the path ``weights``. This recipe has never
been run: neither the pictures nor the weights were available. The losses are those that helped on
rendered pedestrians (see ``finegrain_synthetic.py``); the learning rates are IRRA's.
"""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.methods import MinedConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.recipe import ParameterRule


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("irra_cuhk_pedes.py"))
    return replace(
        parent,
        name="finegrain_cuhk_pedes",
        about="IRRA's trunk on CUHK-PEDES with mined negatives, from CLIP ViT-B/16",
        method=MinedConfig(image=VitConfig(), text=TextConfig(), identities=11003),
        losses=load_recipe(Path(__file__).with_name("finegrain_synthetic.py")).losses,
        optimizer=replace(
            parent.optimizer,
            rules=(*parent.optimizer.rules, ParameterRule(names="match_head.*", lr=5.0)),
        ),
        expected=None,
    )
