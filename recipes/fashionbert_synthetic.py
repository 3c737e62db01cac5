"""FashionBERT's losses on rendered pedestrians, with nets that train on a CPU in minutes.

The patch encoder is small and learns too, since none was trained before.
"""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.methods import FashionBertConfig
from finegrain.models.joint_bert import BertConfig
from finegrain.models.patches import PatchConfig
from finegrain.recipe import Optimizer


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("tiny_synthetic.py"))
    return replace(
        parent,
        name="fashionbert_synthetic",
        about="FashionBERT's losses on rendered pedestrians, minutes on a CPU",
        method=FashionBertConfig(
            image=parent.method.image,
            text=parent.method.text,
            embed_dim=parent.method.embed_dim,
            patches=PatchConfig(model="test_resnet", grids=(4,), pixels=32, frozen=False),
            joint=BertConfig(channels=128, depth=2, heads=4),
            masked_patches=2,
        ),
        losses={"sdm": 1.0, "tia": 1.0, "mlm": 1.0, "mpm": 1.0},
        # The joint encoder normalises after its sums, which large steps do not agree with.
        optimizer=Optimizer(lr=1e-3, weight_decay=0.05),
        batch_size=64,
        expected=None,
    )
