"""ITSELF on ICFG-PEDES: the recipe for CUHK-PEDES with other data."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.data.datasets import IcfgPedes
from finegrain.methods import ItselfConfig
from finegrain.recipe import Expected


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("itself_cuhk_pedes.py"))
    assert isinstance(parent.method, ItselfConfig)
    return replace(
        parent,
        name="itself_icfg_pedes",
        about="ITSELF (WACV 2026) on ICFG-PEDES, from CLIP ViT-B/16",
        data=IcfgPedes(root="data/ICFG-PEDES"),
        method=replace(parent.method, identities=3102),
        expected=Expected(
            rank1=69.23,
            mAP=43.8,
            source="the paper's table, epoch and share of the global embedding selected on test",
        ),
    )
