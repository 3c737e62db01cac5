"""LapsCore's colour tasks beside CLIP on rendered pedestrians, minutes on a CPU."""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("tiny_synthetic.py"))
    return replace(
        parent,
        name="lapscore_synthetic",
        about="CLIP with LapsCore's colour tasks on rendered pedestrians, minutes on a CPU",
        # A picture left grey costs about 0.013, so that the three are of like size.
        losses={"itc": 1.0, "colorize": 50.0, "color_words": 0.5},
        expected=None,
    )
