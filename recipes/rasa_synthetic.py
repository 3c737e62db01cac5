"""RaSa's losses on rendered pedestrians, from random weights and with CLIP's words.

Its towers are transformers, which learn from a few thousand pictures what they can: the recipe
shows that the parts work together, and not what they are worth.
"""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.methods import RasaConfig
from finegrain.models.albef_image import AlbefImageConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.recipe import Optimizer, ParameterRule


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("tiny_synthetic.py"))
    return replace(
        parent,
        name="rasa_synthetic",
        about="RaSa's losses on rendered pedestrians, from random weights",
        method=RasaConfig(
            image=AlbefImageConfig(height=128, width=64, channels=128, depth=4, heads=4),
            text=AlbefTextConfig(
                vocabulary=49408,
                context_length=40,
                channels=128,
                depth=2,
                fusion_depth=2,
                heads=4,
            ),
            embed_dim=128,
            queue=4096,
            ramp=250,
        ),
        losses={"cl": 0.5, "pitm": 1.0, "mlm": 1.0, "prd": 0.5, "mrtd": 0.5},
        captions=1,
        weak_positives=0.1,
        optimizer=Optimizer(
            lr=5e-4,
            weight_decay=0.02,
            rules=(
                ParameterRule(names="prd_head.*", lr=10.0),
                ParameterRule(names="mrtd_head.*", lr=10.0),
            ),
        ),
        batch_size=64,
        expected=None,
    )
