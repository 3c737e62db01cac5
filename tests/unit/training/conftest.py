from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from finegrain.data.datasets import CuhkPedes
from finegrain.methods import ClipConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.recipe import Augment, Optimizer, Recipe, Schedule

COLORS = {
    "black": (15, 15, 15),
    "white": (240, 240, 240),
    "red": (220, 20, 20),
    "green": (20, 200, 20),
    "blue": (20, 20, 220),
    "yellow": (230, 230, 20),
    "pink": (250, 150, 190),
    "cyan": (20, 220, 220),
}


@pytest.fixture(scope="session")
def flat_people(tmp_path_factory):
    """Sixteen people with two pictures: one colour above another, and captions that name both.

    The people of the validation split have the same colours as those of the training split, a
    little darker, so that validation measures what was learned.
    """
    root = tmp_path_factory.mktemp("flat_people")
    records = []
    names = list(COLORS)
    for split, darker in (("train", 0), ("val", 10)):
        for pid in range(16):
            upper, lower = names[pid % 8], names[(pid % 8 + 1 + 2 * (pid // 8)) % 8]
            for picture in range(2):
                path = f"{split}/{pid}_{picture}.png"
                image = Image.new("RGB", (16, 32), shade(lower, darker + 5 * picture))
                image.paste(shade(upper, darker + 5 * picture), (0, 0, 16, 16))
                (root / "imgs" / split).mkdir(parents=True, exist_ok=True)
                image.save(root / "imgs" / path)
                captions = [f"{upper} top and {lower} trousers", f"in {upper} over {lower}"]
                number = pid + (100 if split == "val" else 0)
                records.append(
                    {"split": split, "captions": captions, "file_path": path, "id": number}
                )
    (root / "reid_raw.json").write_text(json.dumps(records))
    return CuhkPedes(root=str(root))


def shade(color, darker):
    return tuple(max(0, channel - darker) for channel in COLORS[color])


@pytest.fixture(scope="session")
def recipe(flat_people):
    """64 pairs in batches of eight: an epoch has eight steps."""
    return Recipe(
        name="flat",
        about="flat colours",
        data=flat_people,
        method=ClipConfig(
            image=VitConfig(height=32, width=16, patch=8, channels=32, depth=1, heads=2),
            text=TextConfig(context_length=16, channels=16, depth=1, heads=2),
            embed_dim=16,
        ),
        augment=Augment(flip=0.5, pad=0.05, erase=0.2, jitter=0.1),
        optimizer=Optimizer(lr=2e-3),
        schedule=Schedule(epochs=3, steps=20, warmup=0.1),
        batch_size=8,
        precision="fp32",
    )


@pytest.fixture
def brief(recipe):
    """The same recipe with two steps."""
    return replace(recipe, schedule=Schedule(epochs=1, steps=2))
