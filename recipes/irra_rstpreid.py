"""IRRA on RSTPReid: the recipe for CUHK-PEDES with other data."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.data.datasets import RstpReid
from finegrain.methods import IrraConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.recipe import Expected


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("irra_cuhk_pedes.py"))
    return replace(
        parent,
        name="irra_rstpreid",
        about="IRRA (CVPR 2023) on RSTPReid, from CLIP ViT-B/16",
        data=RstpReid(root="data/RSTPReid"),
        method=IrraConfig(image=VitConfig(), text=TextConfig(), identities=3701),
        expected=Expected(
            rank1=60.20,
            mAP=47.17,
            rank1_band=(58.0, 60.40),
            source="the paper's table, epoch selected on test; the band is of others' runs",
        ),
    )
