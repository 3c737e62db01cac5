"""ITSELF on RSTPReid: the recipe for CUHK-PEDES with other data."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.data.datasets import RstpReid
from finegrain.methods import ItselfConfig
from finegrain.recipe import Expected


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("itself_cuhk_pedes.py"))
    assert isinstance(parent.method, ItselfConfig)
    return replace(
        parent,
        name="itself_rstpreid",
        about="ITSELF (WACV 2026) on RSTPReid, from CLIP ViT-B/16",
        data=RstpReid(root="data/RSTPReid"),
        method=replace(parent.method, identities=3701),
        expected=Expected(
            rank1=67.3,
            mAP=53.05,
            source="the paper's table, epoch and share of the global embedding selected on test",
        ),
    )
