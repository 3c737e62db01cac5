"""A small CLIP on rendered pedestrians: minutes on a CPU, and the recipe of the demo.

The image tower is a small convolutional net, which learns from a few thousand pictures
what a transformer of the same cost would not.
"""

from finegrain import Recipe
from finegrain.data.datasets import SyntheticPeople
from finegrain.methods import ClipConfig
from finegrain.models import ConvConfig, TextConfig
from finegrain.recipe import Augment, Expected, Optimizer, Schedule


def recipe() -> Recipe:
    return Recipe(
        name="tiny_synthetic",
        about="small CLIP on rendered pedestrians, minutes on a CPU",
        data=SyntheticPeople(root="data/synthetic", train=2000, val=100, test=600),
        method=ClipConfig(
            image=ConvConfig(height=128, width=64, channels=(16, 64, 128, 256)),
            text=TextConfig(context_length=40, channels=128, depth=2, heads=4),
            embed_dim=128,
        ),
        losses={"itc": 1.0},
        augment=Augment(flip=0.5, pad=0.0, erase=0.0, jitter=0.0),
        optimizer=Optimizer(lr=1.5e-3, weight_decay=0.05),
        schedule=Schedule(epochs=7, warmup=0.1, evaluate_every=7),
        batch_size=128,
        expected=Expected(
            rank1=43.5,
            mAP=43.5,
            source="our run, test split: benchmarks/results/demo.json",
        ),
    )
