"""FashionBERT on rendered garments, with networks that train on a CPU in minutes.

Captions are product titles of a shop. The towers and the patch encoder may start from a
contrastive run, just as published models start from CLIP and a ResNet.
``benchmarks/fashion_matching.py`` does so, and measures the effect of the match head. Without
such a run, all parts are trained together from random weights.
"""

from finegrain import Recipe
from finegrain.data.datasets import SyntheticProducts
from finegrain.methods import FashionBertConfig
from finegrain.models import TextConfig, TimmConfig
from finegrain.models.joint_bert import BertConfig
from finegrain.models.patches import PatchConfig
from finegrain.recipe import Augment, Optimizer, ParameterRule, Schedule


def recipe() -> Recipe:
    return Recipe(
        name="fashionbert_synthetic",
        about="FashionBERT on rendered garments, minutes on a CPU",
        data=SyntheticProducts(root="data/products"),
        method=FashionBertConfig(
            image=TimmConfig(model="test_resnet", height=96, width=72),
            text=TextConfig(context_length=40, channels=128, depth=2, heads=4),
            embed_dim=128,
            temperature=0.05,
            patches=PatchConfig(model="test_resnet", grids=(1, 2, 4), pixels=32, frozen=False),
            joint=BertConfig(channels=128, depth=2, heads=4, dropout=0.0),
            # In a search, the match head sees pairs that the towers find similar.
            negatives="mined",
            words="tower",
            # Predicting masked colours teaches words to attend to patches; matching alone gives
            # too little signal.
            hide="apart",
            weighting="fixed",
        ),
        losses={"itc": 1.0, "tia": 1.0, "mlm": 0.5},
        augment=Augment(flip=0.5, pad=0.0, erase=0.0, jitter=0.0),
        optimizer=Optimizer(
            kind="muon",
            lr=4e-3,
            weight_decay=0.05,
            rules=(
                ParameterRule(names="image_tower.*", lr=0.1),
                ParameterRule(names="text_tower.*", lr=0.1),
            ),
        ),
        schedule=Schedule(epochs=16, warmup=0.1, evaluate_every=16),
        batch_size=64,
    )
