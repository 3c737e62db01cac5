"""A small CLIP, trained from random weights on photographs of garments with labels.

There are no captions: they are made from the label and the colour measured in the picture. Give
the folder with the pictures and ``labels.csv`` (columns file, label, split)::

    finegrain train catalog_photos --set data.root=PATH
"""

from finegrain import Recipe
from finegrain.data.datasets import LabelledPhotos
from finegrain.methods import ClipConfig
from finegrain.models import ConvConfig, TextConfig
from finegrain.recipe import Augment, Optimizer, Schedule


def recipe() -> Recipe:
    return Recipe(
        name="catalog_photos",
        about="small CLIP on garment photographs with labels, from scratch on a CPU",
        data=LabelledPhotos(root="data/clothing"),
        method=ClipConfig(
            image=ConvConfig(height=96, width=96, channels=(16, 64, 128, 256)),
            text=TextConfig(context_length=16, channels=128, depth=2, heads=4),
            embed_dim=128,
        ),
        fit="pad",
        augment=Augment(flip=0.5, pad=0.08, erase=0.5, jitter=0.3),
        optimizer=Optimizer(kind="muon", lr=3e-3, weight_decay=0.1),
        schedule=Schedule(epochs=12, warmup=0.1, evaluate_every=4),
        batch_size=64,
    )
