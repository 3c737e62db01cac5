"""RaSa on CUHK-PEDES, trained as in the released code (Bai et al., IJCAI 2023).

Source: https://arxiv.org/abs/2305.13653. It starts from ALBEF: put ``ALBEF.pth`` at the path
``weights``, and ``vocab.txt`` of bert-base-uncased at the path ``vocabulary_file``. The released
code uses four processes with 13 pairs each: ``torchrun --nproc-per-node 4``. We have not measured
the results of this recipe: neither the pictures nor the weights were available.
"""

from finegrain import Recipe
from finegrain.data.datasets import CuhkPedes
from finegrain.methods import RasaConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.preprocess.cleaning import ALBEF_CLEANING
from finegrain.recipe import Augment, Expected, Optimizer, ParameterRule, Schedule


def recipe() -> Recipe:
    return Recipe(
        name="rasa_cuhk_pedes",
        about="RaSa (IJCAI 2023) on CUHK-PEDES, from ALBEF",
        data=CuhkPedes(root="data/CUHK-PEDES"),
        method=RasaConfig(
            text=AlbefTextConfig(
                vocabulary_file="weights/bert-base-uncased/vocab.txt",
                cleaning=ALBEF_CLEANING,
                training_length=512,
            ),
            # Number of steps of the first epoch: 68,126 pairs in batches of 52.
            ramp=1310,
            distill_axis="sequence",
        ),
        weights="weights/ALBEF.pth",
        losses={"cl": 0.5, "pitm": 1.0, "mlm": 1.0, "prd": 0.5, "mrtd": 0.5},
        weak_positives=0.1,
        interpolation="bicubic",
        augment=Augment(flip=0.5, pad=0.0, erase=0.0),
        optimizer=Optimizer(
            lr=1e-5,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.02,
            clip_norm=None,
            rules=(
                ParameterRule(names="prd_head.*", lr=10.0),
                ParameterRule(names="mrtd_head.*", lr=10.0),
                ParameterRule(names="temperature", weight_decay=0.02),
            ),
        ),
        # The warm-up "epoch" of the released code has 101 steps. In these, the heads have the
        # same learning rate as all other parameters. All rates decay to the same 1e-6.
        schedule=Schedule(
            epochs=30, warmup=0.0, initial=1.0, final=0.1, same_ends=True, hold=101, by_epoch=True
        ),
        batch_size=13,
        precision="fp32",
        workers=4,
        seed=42,
        expected=Expected(
            rank1=76.51,
            mAP=69.38,
            rerank_k=128,
            rerank_by="match",
            source="the paper's table, last epoch",
        ),
    )
