"""RaSa on rendered pedestrians, with towers that train on a CPU in minutes.

The image tower may start from that of a contrastive run, just as published models start from
ALBEF. ``benchmarks/rerank_curve.py`` does so, and measures the effect of re-ranking. Without such
a run, all parts are trained together from random weights.
"""

from dataclasses import replace
from pathlib import Path

from finegrain import Recipe, load_recipe
from finegrain.data.datasets import SyntheticPeople
from finegrain.methods import ClipConfig, RasaConfig
from finegrain.models import ConvConfig
from finegrain.models.albef_image import ConvImageConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.recipe import Optimizer, ParameterRule, Schedule


def recipe() -> Recipe:
    parent = load_recipe(Path(__file__).with_name("tiny_synthetic.py"))
    towers = parent.method
    assert isinstance(towers, ClipConfig)
    assert isinstance(towers.image, ConvConfig)
    return replace(
        parent,
        name="rasa_synthetic",
        about="RaSa on rendered pedestrians, minutes on a CPU",
        # With few people, a head that sees pairs would memorise them.
        data=SyntheticPeople(root="data/rasa", train=6000, val=100, test=600),
        method=RasaConfig(
            image=ConvImageConfig(net=towers.image),
            text=AlbefTextConfig(
                vocabulary=49408,
                context_length=40,
                channels=128,
                depth=2,
                fusion_depth=2,
                heads=4,
                dropout=0.0,
            ),
            embed_dim=towers.embed_dim,
            # Weights change fast here, so features from older weights are not comparable.
            momentum=0.9,
            queue=512,
            ramp=200,
        ),
        # Masked words teach words to attend to the picture. Non-matching pairs teach little until
        # the towers find hard ones.
        losses={"cl": 4.0, "pitm": 1.0, "mlm": 0.5},
        optimizer=Optimizer(
            kind="muon",
            lr=4e-3,
            weight_decay=0.05,
            rules=(
                # BERT normalises after the residual sums, which is unstable with large steps.
                ParameterRule(names="text_tower.bert.*", lr=0.5),
                # The temperature is learned directly and not as a logarithm, so a large step could
                # make it negative.
                ParameterRule(names="temperature", lr=0.02),
            ),
        ),
        schedule=Schedule(epochs=3, warmup=0.1, evaluate_every=3),
        batch_size=64,
        expected=None,
    )
