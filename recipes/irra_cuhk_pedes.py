"""IRRA on CUHK-PEDES, trained as in the released code (Jiang and Ye, CVPR 2023).

Source: https://arxiv.org/abs/2303.12501. It starts from OpenAI's CLIP: put ``ViT-B-16.pt`` at the
path ``weights``. We have not measured the results of this recipe: neither the pictures nor the
weights were available.
"""

from finegrain import Recipe
from finegrain.data.datasets import CuhkPedes
from finegrain.methods import IrraConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.recipe import Augment, Expected, Optimizer, ParameterRule, Schedule

# The released code erases after normalising and fills with CLIP's mean. In pixel values this is
# mean + std * mean.
ERASED = (156, 147, 133)


def recipe() -> Recipe:
    return Recipe(
        name="irra_cuhk_pedes",
        about="IRRA (CVPR 2023) on CUHK-PEDES, from CLIP ViT-B/16",
        data=CuhkPedes(root="data/CUHK-PEDES"),
        method=IrraConfig(image=VitConfig(), text=TextConfig(), identities=11003),
        weights="weights/ViT-B-16.pt",
        losses={"sdm": 1.0, "id": 1.0, "mlm": 1.0},
        augment=Augment(flip=0.5, pad=10 / 384, erase=0.5, fill=ERASED),
        optimizer=Optimizer(
            kind="adam",
            lr=1e-5,
            betas=(0.9, 0.999),
            eps=1e-3,
            weight_decay=4e-5,
            decay_vectors=True,
            clip_norm=None,
            rules=(
                ParameterRule(names="fusion.cross_attn.*", lr=5.0),
                ParameterRule(names="fusion.transformer.*", lr=5.0),
                # Also applies to the cross-former: the released code has this rule second.
                ParameterRule(names="*bias", lr=2.0, weight_decay=0.0),
                ParameterRule(names="classifier.*", lr=5.0),
                ParameterRule(names="mlm_head.*", lr=5.0),
            ),
        ),
        schedule=Schedule(epochs=60, warmup=5 / 60, initial=0.1, by_epoch=True),
        batch_size=64,
        drop_last=False,
        workers=8,
        seed=1,
        expected=Expected(
            rank1=73.38,
            mAP=66.13,
            rank1_band=(73.11, 73.48),
            source="the paper's table, epoch selected on test; the band is of others' runs",
        ),
    )
