"""Negation: "with a red coat" or "without a red coat"?

The questions follow NegBench (Alhamoud et al. 2025, https://arxiv.org/abs/2501.09425): the right
caption affirms what the picture shows, denies what it does not show, or does both. Three wrong
captions do the contrary.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from finegrain.evaluation.probes.attribute_swap import namings
from finegrain.evaluation.probes.attributes import Attribute, IdentityTexts
from finegrain.evaluation.probes.questions import Probe, Question
from finegrain.evaluation.probes.wording import thing_after, with_article
from finegrain.records import Sample

KINDS = ("affirmative", "negative", "hybrid")
_WANTED = "a caption that names something whose other values are known to be absent"


class Contrast(NamedTuple):
    """A thing that a picture shows, and a similar one that it does not show."""

    shown: str
    absent: str

    def choices(self, kind: str) -> tuple[str, ...]:
        """The right caption of a kind, followed by three wrong ones."""
        right = {
            "affirmative": f"a picture with {self.shown}",
            "negative": f"a picture without {self.absent}",
            "hybrid": f"a picture with {self.shown} but without {self.absent}",
        }[kind]
        return (
            right,
            f"a picture with {self.absent}",
            f"a picture without {self.shown}",
            f"a picture with {self.absent} but without {self.shown}",
        )


def negations(
    samples: Sequence[Sample], attributes: Sequence[Attribute], texts: IdentityTexts, *, seed: int
) -> list[Probe]:
    """One probe per kind that asks about every picture, and one that draws a kind per picture.

    The absent thing is another value of the same attribute: a red coat is not blue.
    """
    mixed: list[Question] = []
    by_kind: dict[str, list[Question]] = {kind: [] for kind in KINDS}
    for number, sample in enumerate(samples):
        rng = random.Random(f"finegrain/{seed}/negation/{number}")
        contrasts = [c for a in attributes for c in _contrasts(sample, a, texts, rng)]
        if not contrasts:
            continue
        contrast = rng.choice(contrasts)
        for kind in KINDS:
            by_kind[kind].append(_question(sample.image, contrast, kind))
        mixed.append(by_kind[rng.choice(KINDS)][-1])
    probes = {"negation": mixed} | {f"negation: {kind}": by_kind[kind] for kind in KINDS}
    return [
        Probe(name=name, choices=4, questions=questions, wanted=_WANTED)
        for name, questions in probes.items()
    ]


def _question(image: Path, contrast: Contrast, kind: str) -> Question:
    return Question(images=(image,), captions=contrast.choices(kind))


def _contrasts(
    sample: Sample, attribute: Attribute, texts: IdentityTexts, rng: random.Random
) -> Iterator[Contrast]:
    """Yield pairs of what is shown and what is absent. An adjective needs the noun after it."""
    for naming in namings(sample, attribute, texts):
        rest = ""
        if not attribute.noun:
            thing = thing_after(naming.caption, naming.span)
            if thing is not None:
                rest = naming.caption[naming.span.end : thing.end].lower()
            elif not attribute.column:
                continue
        other = naming.draw(rng)
        yield Contrast(with_article(f"{naming.span.text}{rest}"), with_article(f"{other}{rest}"))
