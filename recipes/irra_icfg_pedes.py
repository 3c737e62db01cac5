"""IRRA on ICFG-PEDES: the recipe for CUHK-PEDES with other data."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.data.datasets import IcfgPedes
from finegrain.methods import IrraConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.recipe import Expected


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("irra_cuhk_pedes.py"))
    return replace(
        parent,
        name="irra_icfg_pedes",
        about="IRRA (CVPR 2023) on ICFG-PEDES, from CLIP ViT-B/16",
        data=IcfgPedes(root="data/ICFG-PEDES"),
        method=IrraConfig(image=VitConfig(), text=TextConfig(), identities=3102),
        expected=Expected(
            rank1=63.46,
            mAP=38.06,
            rank1_band=(63.48, 63.83),
            source="the paper's table, epoch selected on test; the band is of others' runs",
        ),
    )
