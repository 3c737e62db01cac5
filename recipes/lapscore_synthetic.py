"""CLIP with the colour tasks of LapsCore on rendered pedestrians, in minutes on a CPU."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("tiny_synthetic.py"))
    return replace(
        parent,
        name="lapscore_synthetic",
        about="CLIP with LapsCore's colour tasks on rendered pedestrians, minutes on a CPU",
        # The loss of a picture left grey is about 0.013. The weight brings the three losses to a
        # similar size.
        losses={"itc": 1.0, "colorize": 50.0, "color_words": 0.5},
        expected=None,
    )
