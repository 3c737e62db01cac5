"""Parts of a garment in a colour of their own: sleeves, hems, prints and side stripes."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

LEGGED = ("trousers", "jeans", "shorts")
PRINTS = ("circle", "square", "triangle", "star", "heart")
_SLEEVES_SHARE = 0.5
_HEM_SHARE = 0.6
_PRINT_SHARE = 0.55
_STRIPES_SHARE = 0.6
_WAISTBAND_SHARE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """What is not in the garment's own colour; None where there is no such thing.

    Attributes:
        sleeves: Colour of both sleeves.
        hem: Of a band along the lower edge, or around the ends of both legs.
        print: One of :data:`PRINTS`, on chest and back.
        print_color: Its colour.
        stripes: Colour of a stripe down each leg.
        waistband: Of trousers, shorts and skirts.
    """

    sleeves: str | None = None
    hem: str | None = None
    print: str | None = None
    print_color: str | None = None
    stripes: str | None = None
    waistband: str | None = None


UNTRIMMED = Trim()


def draw_trim(
    rng: random.Random, category: str, body: Collection[str | None], colors: Collection[str]
) -> Trim:
    """Trim that stands out from the one or two colours of a garment's body.

    Colours are drawn evenly, so that a red shirt with white sleeves is as likely as a white
    one with red sleeves, where both bodies are.
    """
    apart = sorted(set(colors).difference(body))

    def color(share: float) -> str | None:
        found = rng.choice(apart)
        return found if rng.random() < share else None

    if category == "skirt":
        return Trim(hem=color(_HEM_SHARE), waistband=color(_WAISTBAND_SHARE))
    if category in LEGGED:
        return Trim(
            stripes=color(_STRIPES_SHARE), hem=color(_HEM_SHARE), waistband=color(_WAISTBAND_SHARE)
        )
    printed = color(_PRINT_SHARE)
    motif = rng.choice(PRINTS)
    return Trim(
        sleeves=color(_SLEEVES_SHARE),
        hem=color(_HEM_SHARE),
        print=motif if printed else None,
        print_color=printed,
    )


def phrases(trim: Trim, category: str, sleeves: str) -> Iterator[str]:
    """What a seller says of it, such as ``long white sleeves`` and ``a blue star``."""
    if trim.sleeves:
        yield f"{sleeves} {trim.sleeves} sleeves"
    if trim.print:
        yield f"{_article(trim.print_color)} {trim.print_color} {trim.print}"
    if trim.stripes:
        yield f"{trim.stripes} side stripes"
    if trim.waistband:
        yield f"{_article(trim.waistband)} {trim.waistband} waistband"
    if trim.hem and category in LEGGED:
        yield f"{trim.hem} cuffs"
    elif trim.hem:
        yield f"{_article(trim.hem)} {trim.hem} hem"


def _article(color: str | None) -> str:
    return "an" if color == "orange" else "a"
