"""Parts of a garment that have another colour: sleeves, hems, prints and side stripes."""

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
_KNEES_SHARE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """Parts of a garment that have another colour; None for parts that do not.

    Attributes:
        slot: The garment of a person, ``upper`` or ``lower``.
        sleeves: Colour of both sleeves.
        hem: Colour of a band along the lower edge, or around the ends of both legs.
        print: One of :data:`PRINTS`, on the front and the back.
        print_color: Its colour.
        stripes: Colour of a stripe down each leg.
        knees: Colour of patches on the knees of long trousers.
    """

    slot: str = "upper"
    sleeves: str | None = None
    hem: str | None = None
    print: str | None = None
    print_color: str | None = None
    stripes: str | None = None
    knees: str | None = None


UNTRIMMED = Trim()


def draw_trim(
    rng: random.Random, category: str, body: Collection[str | None], colors: Collection[str]
) -> Trim:
    """Draw a trim in other colours than the one or two colours of the garment's body.

    All colours have the same probability. A red shirt with white sleeves is therefore as likely as
    a white one with red sleeves, if both body colours exist.
    """
    apart = sorted(set(colors).difference(body))

    def color(share: float) -> str | None:
        drawn = rng.choice(apart)
        return drawn if rng.random() < share else None

    if category in LEGGED:
        return Trim(
            slot="lower",
            stripes=color(_STRIPES_SHARE),
            hem=color(_HEM_SHARE),
            knees=color(0.0 if category == "shorts" else _KNEES_SHARE),
        )
    printed = color(_PRINT_SHARE)
    motif = rng.choice(PRINTS)
    return Trim(
        slot="lower" if category == "skirt" else "upper",
        sleeves=color(0.0 if category == "skirt" else _SLEEVES_SHARE),
        hem=color(_HEM_SHARE),
        print=motif if printed else None,
        print_color=printed,
    )


def phrases(trim: Trim, category: str, sleeves: str) -> Iterator[str]:
    """The description in a title, such as ``long white sleeves`` and ``a blue star``."""
    if trim.sleeves:
        yield f"{sleeves} {trim.sleeves} sleeves"
    if trim.print:
        yield f"{_article(trim.print_color)} {trim.print_color} {trim.print}"
    if trim.stripes:
        yield f"{trim.stripes} side stripes"
    if trim.knees:
        yield f"{trim.knees} knees"
    if trim.hem and category in LEGGED:
        yield f"{trim.hem} cuffs"
    elif trim.hem:
        yield f"{_article(trim.hem)} {trim.hem} hem"


def _article(color: str | None) -> str:
    return "an" if color == "orange" else "a"
