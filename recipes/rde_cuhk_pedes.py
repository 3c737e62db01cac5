"""RDE on CUHK-PEDES, as the paper's released code trains it (Qin et al., CVPR 2024).

It starts from OpenAI's CLIP: put ``ViT-B-16.pt`` where ``weights`` says. What this recipe
reaches has not been measured by us: neither the pictures nor the weights could be had.

The published numbers are of code that left its batch normalisation in evaluation mode while
training, which its authors have since mended; they say that this helps on clean captions and
hurts on noisy ones. Here it is as mended.
"""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.methods import IrraConfig, RdeConfig
from finegrain.recipe import Expected, ParameterRule


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("irra_cuhk_pedes.py"))
    towers = parent.method
    assert isinstance(towers, IrraConfig)
    return replace(
        parent,
        name="rde_cuhk_pedes",
        about="RDE (CVPR 2024) on CUHK-PEDES, from CLIP ViT-B/16",
        method=RdeConfig(
            image=towers.image, text=towers.text, items=68126, short_captions="padding"
        ),
        losses={"bge": 1.0, "tse": 1.0},
        optimizer=replace(
            parent.optimizer,
            rules=(
                ParameterRule(names="*bias", lr=2.0, weight_decay=0.0),
                # 1e-3, whatever the rule before says of their biases' rate.
                ParameterRule(names="*_selection.*", lr=100.0),
            ),
        ),
        expected=Expected(
            rank1=75.94,
            mAP=67.56,
            source="the paper's table, epoch selected on test",
        ),
    )
