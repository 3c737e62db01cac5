"""RDE on CUHK-PEDES, trained as in the released code (Qin et al., CVPR 2024).

Source: https://arxiv.org/abs/2308.09911. It starts from OpenAI's CLIP: put ``ViT-B-16.pt`` at the
path ``weights``. We have not measured the results of this recipe: neither the pictures nor the
weights were available.

The published results come from code that kept its batch normalisation in evaluation mode during
training. The authors have since fixed this. They state that the fix helps with clean captions and
hurts with noisy ones. This recipe follows the fixed code.
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
                # The rate is 1e-3, also for biases: the last matching rule applies.
                ParameterRule(names="*_selection.*", lr=100.0),
            ),
        ),
        expected=Expected(
            rank1=75.94,
            mAP=67.56,
            source="the paper's table, epoch selected on test",
        ),
    )
