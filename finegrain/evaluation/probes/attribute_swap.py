"""One attribute of a caption exchanged for another value: "striped shirt" or "plaid shirt"?"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from finegrain.evaluation.probes.questions import Probe, Question
from finegrain.evaluation.probes.told import Attribute, Told
from finegrain.evaluation.probes.wording import Span, exchanged
from finegrain.records import Sample


class Naming(NamedTuple):
    """A value that a caption names.

    Attributes:
        caption: The caption.
        span: The word for the value.
        others: Words for values that are not the identity's, and how often each is used.
    """

    caption: str
    span: Span
    others: Mapping[str, int]

    def draw(self, rng: random.Random) -> str:
        """Another value, as often as captions use it.

        Were rare values drawn as often as common ones, the likelier text would mostly be the
        right one, and who has not seen the picture would do well.
        """
        return rng.choices(list(self.others), list(self.others.values()))[0]


def namings(sample: Sample, attribute: Attribute, told: Told) -> Iterator[Naming]:
    """Each place in the captions of a picture where a value could be exchanged."""
    for caption in sample.captions:
        for span, value in attribute.named_in(caption, sample):
            others = attribute.others(caption, span, value, sample.pid, told)
            if others:
                yield Naming(caption, span, others)


def attribute_swaps(
    samples: Sequence[Sample], attributes: Sequence[Attribute], told: Told, *, seed: int
) -> list[Probe]:
    """For each attribute: a picture chooses between its caption and one that is wrong in it."""
    return [_swaps_of(attribute, samples, told, seed) for attribute in attributes]


def _swaps_of(attribute: Attribute, samples: Sequence[Sample], told: Told, seed: int) -> Probe:
    questions = []
    for number, sample in enumerate(samples):
        found = list(namings(sample, attribute, told))
        if not found:
            continue
        rng = random.Random(f"finegrain/{seed}/attribute swap/{attribute.name}/{number}")
        naming = rng.choice(found)
        wrong = exchanged(naming.caption, [(naming.span, naming.draw(rng))])
        questions.append(Question(images=(sample.image,), captions=(naming.caption, wrong)))
    return Probe(
        name=f"attribute swap: {attribute.name}",
        choices=2,
        questions=questions,
        wanted=f"a caption whose {attribute.name} could be another",
    )
