"""Two colours of a caption exchanged: "red coat, blue jeans" or "blue coat, red jeans"?

The probe measures whether a model binds colours to things; a bag of words stays at chance (ARO,
Yuksekgonul et al. 2023, https://arxiv.org/abs/2210.01936; ColorSwap, Burapacheep et al. 2024,
https://arxiv.org/abs/2402.04492).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from finegrain.evaluation.probes.attributes import IdentityTexts
from finegrain.evaluation.probes.questions import Probe, Question
from finegrain.evaluation.probes.wording import ColorMention, colors_of, exchanged
from finegrain.records import Pid, Sample

Worn = frozenset[tuple[str, str]]
"""Pairs of a colour and the thing that has it."""


class Swap(NamedTuple):
    """A caption, its copy with two colours exchanged, and the colours that each states."""

    caption: str
    swapped: str
    worn: Worn
    exchanged: Worn


def color_swaps(samples: Sequence[Sample], texts: IdentityTexts, *, seed: int) -> list[Probe]:
    """Two probes: a picture chooses its caption, and a caption chooses its picture.

    The second one needs a counterpart: a picture of another identity that wears the exchanged
    colours. Its captions give each of the two things the colour of the other thing, and never
    the colours in the question.
    """
    worn = _worn(samples)
    by_worn: dict[tuple[str, str], set[int]] = defaultdict(set)
    for number, sample in enumerate(samples):
        for pair in worn[sample.pid]:
            by_worn[pair].add(number)
    by_caption, by_picture = [], []
    for number, sample in enumerate(samples):
        rng = random.Random(f"finegrain/{seed}/color swap/{number}")
        swaps = [s for caption in sample.captions for s in _swaps(caption, sample, texts, worn)]
        if not swaps:
            continue
        swap = rng.choice(swaps)
        by_caption.append(Question(images=(sample.image,), captions=(swap.caption, swap.swapped)))
        paired = [(s, c) for s in swaps for c in _counterparts(s, sample, samples, by_worn, worn)]
        if paired:
            swap, counterpart = rng.choice(paired)
            images = (sample.image, samples[counterpart].image)
            by_picture.append(Question(images=images, captions=(swap.caption,)))
    return [
        Probe(
            name="color swap",
            choices=2,
            questions=by_caption,
            wanted="a caption that names two colours of two things",
        ),
        Probe(
            name="color swap, caption to picture",
            choices=2,
            questions=by_picture,
            wanted="a picture of another identity that wears the exchanged colours",
        ),
    ]


def _worn(samples: Sequence[Sample]) -> dict[Pid | None, set[tuple[str, str]]]:
    """Identity to the pairs of colour and thing that its captions name."""
    worn: dict[Pid | None, set[tuple[str, str]]] = defaultdict(set)
    for sample in samples:
        for caption in sample.captions:
            worn[sample.pid] |= _bound(colors_of(caption))
    return worn


def _bound(mentions: Sequence[ColorMention]) -> Worn:
    return frozenset((m.color, m.thing) for m in mentions if m.thing is not None)


def _swaps(
    caption: str, sample: Sample, texts: IdentityTexts, worn: dict[Pid | None, set[tuple[str, str]]]
) -> Iterator[Swap]:
    mentions = colors_of(caption)
    for first, second in combinations(mentions, 2):
        if first.color == second.color or (first.thing and first.thing == second.thing):
            continue
        other_word = {first.span.text: second.span.text, second.span.text: first.span.text}
        swapped = exchanged(
            caption,
            [(m.span, other_word[m.span.text]) for m in mentions if m.span.text in other_word],
        )
        pair = _bound([first, second])
        other = _bound([first._replace(color=second.color), second._replace(color=first.color)])
        if not texts.has_text(sample.pid, swapped) and not other & worn[sample.pid]:
            yield Swap(caption, swapped, pair, other)


def _counterparts(
    swap: Swap,
    sample: Sample,
    samples: Sequence[Sample],
    by_worn: dict[tuple[str, str], set[int]],
    worn: dict[Pid | None, set[tuple[str, str]]],
) -> list[int]:
    if len(swap.exchanged) < 2:
        return []
    wearing = set.intersection(*(by_worn.get(pair, set()) for pair in swap.exchanged))
    return sorted(
        n for n in wearing if samples[n].pid != sample.pid and not swap.worn & worn[samples[n].pid]
    )
