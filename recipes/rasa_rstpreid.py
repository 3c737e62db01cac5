"""RaSa on RSTPReid: the recipe for CUHK-PEDES with other data."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.data.datasets import RstpReid
from finegrain.methods import RasaConfig
from finegrain.recipe import Expected


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("rasa_cuhk_pedes.py"))
    assert isinstance(parent.method, RasaConfig)
    return replace(
        parent,
        name="rasa_rstpreid",
        about="RaSa (IJCAI 2023) on RSTPReid, from ALBEF",
        data=RstpReid(root="data/RSTPReid"),
        # Number of steps of the first epoch: 37,010 pairs in batches of 52.
        method=replace(parent.method, ramp=711),
        expected=Expected(
            rank1=66.9,
            mAP=52.31,
            rerank_k=128,
            rerank_by="match",
            source="the paper's table, epoch selected on test",
        ),
    )
