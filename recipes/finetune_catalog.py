"""Fine-tune a published CLIP on a shop's own pictures and texts.

Give the folder with the table and the pictures; the columns are ``image`` and ``caption``, and
others can be named::

    finegrain train finetune_catalog --set data.root=shop --set data.pid_column=sku

The schedule is for 500 to 50,000 pictures: 20 epochs, and at most 5,000 steps. Training stops
when rank1 on the validation split has not improved for three epochs. The starting weights are
evaluated first; if training improves nothing, they remain the best checkpoint. On a processor
without a GPU, train low-rank updates only (``--set lora={}``), or freeze the lower layers.
"""

from finegrain import Recipe
from finegrain.data.datasets import Catalog
from finegrain.methods import ClipConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.recipe import Augment, Optimizer, Schedule


def recipe() -> Recipe:
    return Recipe(
        name="finetune_catalog",
        about="a published CLIP, fine-tuned on a catalogue of one's own",
        data=Catalog(root="data/shop", table="catalog.csv"),
        method=ClipConfig(image=VitConfig(height=224, width=224), text=TextConfig(), embed_dim=512),
        weights="clip-vit-b16",
        fit="crop",
        interpolation="bicubic",
        augment=Augment(flip=0.5, pad=0.025, erase=0.0, jitter=0.1),
        optimizer=Optimizer(lr=1e-5, weight_decay=0.1),
        schedule=Schedule(epochs=20, steps=5000, warmup=0.1, evaluate_first=True, patience=3),
        batch_size=64,
        export_plan=True,
    )
