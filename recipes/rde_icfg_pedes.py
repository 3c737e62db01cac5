"""RDE on ICFG-PEDES: the recipe for CUHK-PEDES with other data."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.data.datasets import IcfgPedes
from finegrain.methods import RdeConfig
from finegrain.recipe import Expected


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("rde_cuhk_pedes.py"))
    assert isinstance(parent.method, RdeConfig)
    return replace(
        parent,
        name="rde_icfg_pedes",
        about="RDE (CVPR 2024) on ICFG-PEDES, from CLIP ViT-B/16",
        data=IcfgPedes(root="data/ICFG-PEDES"),
        method=replace(parent.method, items=34674),
        expected=Expected(
            rank1=67.68,
            mAP=40.06,
            source="the paper's table, epoch selected on test",
        ),
    )
