"""RaSa on ICFG-PEDES: the recipe for CUHK-PEDES with other data."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.data.datasets import IcfgPedes
from finegrain.methods import RasaConfig
from finegrain.recipe import Expected


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("rasa_cuhk_pedes.py"))
    assert isinstance(parent.method, RasaConfig)
    return replace(
        parent,
        name="rasa_icfg_pedes",
        about="RaSa (IJCAI 2023) on ICFG-PEDES, from ALBEF",
        data=IcfgPedes(root="data/ICFG-PEDES"),
        # Number of steps of the first epoch: 34,674 pairs in batches of 52.
        method=replace(parent.method, ramp=666),
        expected=Expected(
            rank1=65.28,
            mAP=41.29,
            rerank_k=128,
            rerank_by="match",
            source="the paper's table, epoch selected on test",
        ),
    )
