"""Our own training on CUHK-PEDES: IRRA's trunk, and hard negatives from wherever they come.

It starts from OpenAI's CLIP: put ``ViT-B-16.pt`` where ``weights`` says. It has never run:
neither the pictures nor the weights could be had. Its losses are those that were of use on
rendered pedestrians (see ``finegrain_synthetic.py``); the rates are IRRA's.
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
