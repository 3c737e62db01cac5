"""One attribute of a caption exchanged for another value: "striped shirt" or "plaid shirt"?"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from finegrain.evaluation.probes.attributes import Attribute, IdentityTexts
from finegrain.evaluation.probes.questions import Probe, Question
from finegrain.evaluation.probes.wording import Span, exchanged
from finegrain.records import Sample


class Naming(NamedTuple):
    """A value that a caption names.

    Attributes:
        caption: The caption.
        span: Where the caption names the value.
        others: Words for values that the identity does not have, and how often captions use each.
    """

    caption: str
    span: Span
    others: Mapping[str, int]

    def draw(self, rng: random.Random) -> str:
        """Draw another value with the frequency that captions use it.

        If rare values were drawn as often as common ones, the right caption would mostly be the
        likelier text, and a model could answer without the picture.
        """
        return rng.choices(list(self.others), list(self.others.values()))[0]


def namings(sample: Sample, attribute: Attribute, texts: IdentityTexts) -> Iterator[Naming]:
    """Yield each place in the captions of a sample where a value can be exchanged."""
    for caption in sample.captions:
        for span, value in attribute.named_in(caption, sample):
            others = attribute.others(caption, span, value, sample.pid, texts)
            if others:
                yield Naming(caption, span, others)


def attribute_swaps(
    samples: Sequence[Sample], attributes: Sequence[Attribute], texts: IdentityTexts, *, seed: int
) -> list[Probe]:
    """One probe per attribute: a picture's caption against the same with another value."""
    return [_swaps_of(attribute, samples, texts, seed) for attribute in attributes]


def _swaps_of(
    attribute: Attribute, samples: Sequence[Sample], texts: IdentityTexts, seed: int
) -> Probe:
    questions = []
    for number, sample in enumerate(samples):
        candidates = list(namings(sample, attribute, texts))
        if not candidates:
            continue
        rng = random.Random(f"finegrain/{seed}/attribute swap/{attribute.name}/{number}")
        naming = rng.choice(candidates)
        wrong = exchanged(naming.caption, [(naming.span, naming.draw(rng))])
        questions.append(Question(images=(sample.image,), captions=(naming.caption, wrong)))
    return Probe(
        name=f"attribute swap: {attribute.name}",
        choices=2,
        questions=questions,
        wanted=f"a caption whose {attribute.name} can be exchanged",
    )
