"""TBPS-CLIP, simplified, on CUHK-PEDES (Cao et al., AAAI 2024).

Source: https://arxiv.org/abs/2308.10045. This is the cheapest recipe: it has five epochs. It
starts from OpenAI's CLIP: put ``ViT-B-16.pt`` at the path ``weights``. The paper's batch of 320 is
the sum over all processes: with four devices, use ``--set batch_size=80``. With one device,
``--set accumulate=4`` does *not* replace it, since the contrastive loss of each part compares only
the pairs of that part.

The losses are those of the paper's simplified method. The released code replaces one in ten
captions by a back-translated one. These captions are not part of the dataset and are left out. We
have not measured the results of this recipe.
"""

from finegrain import Recipe
from finegrain.data.datasets import CuhkPedes
from finegrain.methods import TbpsClipConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.preprocess.cleaning import TBPS_CLIP_CLEANING
from finegrain.recipe import Augment, Expected, Optimizer, Schedule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def recipe() -> Recipe:
    return Recipe(
        name="tbps_clip_cuhk_pedes",
        about="TBPS-CLIP, simplified (AAAI 2024), on CUHK-PEDES, from CLIP ViT-B/16",
        data=CuhkPedes(root="data/CUHK-PEDES"),
        method=TbpsClipConfig(
            image=VitConfig(height=224, width=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
            text=TextConfig(dropout=0.05, cleaning=TBPS_CLIP_CLEANING),
            # Number of steps of an epoch: 68,126 pairs in batches of 320.
            ramp=212,
        ),
        weights="weights/ViT-B-16.pt",
        losses={"nitc": 1.0, "ritc": 1.0},
        interpolation="bicubic",
        augment=Augment(
            interpolation="bilinear", flip=0.0, pad=0.0, erase=0.0, picks=2, drop_words=0.05
        ),
        optimizer=Optimizer(
            kind="adamw",
            lr=1e-4,
            betas=(0.9, 0.98),
            eps=1e-8,
            weight_decay=0.02,
            clip_norm=None,
        ),
        schedule=Schedule(epochs=5, warmup=1 / 5, initial=0.01, from_initial=True, final=0.05),
        batch_size=320,
        workers=8,
        expected=Expected(
            rank1=72.66,
            source="the paper's ablation, simplified, with translated captions; 73.54 in full",
        ),
    )
