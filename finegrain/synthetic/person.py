"""The attributes of synthetic people, and their random generation.

All random draws use `random.Random` with a text as seed. Python hashes texts the same way on every
machine, so a seed always gives the same population.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from finegrain.errors import DataError
from finegrain.synthetic import wardrobe

SWAP_SHARE = 0.2
PHYSIQUE = ("stature", "build", "tone")
COLOR_FIELDS: dict[str, str] = {
    "upper": "upper_color",
    "lower": "lower_color",
    "shoes": "shoes_color",
    "bag": "bag_color",
    "hat": "hat_color",
    "umbrella": "umbrella_color",
}
"""The field of `Person` with the colour, for each slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The appearance of an identity, the same in all of its pictures.

    Attributes:
        upper_second_color: The other colour of a striped or checked upper garment.
        upper_open: The coat or jacket is worn open.
        belt: The coat or dress has a belt.
        hem: Length of the lower garment or dress: ``short``, ``knee``, ``cropped``
            or ``long``.
        stature: Height, as a multiple of the average.
        build: Width of the body, as a multiple of the average.
        tone: Lightness of this person's colours, from dark (-1) to light (+1).
    """

    gender: str
    skin: str
    hair_color: str
    hair_length: str
    hair_style: str
    upper: str
    upper_color: str
    upper_pattern: str
    upper_second_color: str | None
    sleeves: str
    upper_open: bool
    belt: bool
    lower: str | None
    lower_color: str | None
    lower_pattern: str | None
    lower_second_color: str | None
    hem: str
    shoes: str
    shoes_color: str
    bag: str | None
    bag_color: str | None
    hat: str | None
    hat_color: str | None
    umbrella_color: str | None
    stature: float
    build: float
    tone: float

    @property
    def looks(self) -> tuple[object, ...]:
        """All attributes that a caption can name. Two identities differ in at least one."""
        return tuple(value for name, value in asdict(self).items() if name not in PHYSIQUE)

    def color(self, slot: str) -> str | None:
        """Colour name of a slot of `COLOR_FIELDS`; None if the person has no such thing."""
        value: str | None = getattr(self, COLOR_FIELDS[slot])
        return value

    def attributes(self) -> dict[str, str | bool | None]:
        """The columns for filters and attribute queries."""
        return {
            "gender": self.gender,
            "hair_color": self.hair_color,
            "hair_length": self.hair_length,
            "hair_style": self.hair_style,
            "upper": self.upper,
            "upper_color": self.upper_color,
            "upper_pattern": self.upper_pattern,
            "upper_second_color": self.upper_second_color,
            "sleeves": self.sleeves,
            "lower": self.lower,
            "lower_color": self.lower_color,
            "lower_pattern": self.lower_pattern,
            "lower_second_color": self.lower_second_color,
            "hem": self.hem,
            "shoes": self.shoes,
            "shoes_color": self.shoes_color,
            "bag": self.bag,
            "bag_color": self.bag_color,
            "hat": self.hat,
            "hat_color": self.hat_color,
            "umbrella": self.umbrella_color is not None,
            "umbrella_color": self.umbrella_color,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A person with its number and, in a swap pair, its partner.

    Attributes:
        pid: 1-based number.
        swap: The two slots whose colours are exchanged for the partner.
        swap_pid: The partner's number.
    """

    pid: int
    person: Person
    swap: tuple[str, str] | None = None
    swap_pid: int | None = None


def identities(count: int, *, seed: int = 0) -> tuple[Identity, ...]:
    """The first ``count`` identities of a population; all look different.

    A larger ``count`` with the same seed appends identities. Swap partners are neighbours
    (``pid`` odd and ``pid + 1``). If an odd ``count`` splits the last pair, the
    remaining identity has no partner.

    Raises:
        DataError: ``count`` is not positive.
    """
    if count < 1:
        raise DataError(f"identities: expected at least 1, got {count!r}. Ask for one or more.")
    people = list(islice(_population(seed), count))
    last = people[-1]
    if last.swap_pid is not None and last.swap_pid > count:
        people[-1] = replace(last, swap=None, swap_pid=None)
    return tuple(people)


def _population(seed: int) -> Iterator[Identity]:
    seen: set[tuple[object, ...]] = set()
    slot = 0
    while True:
        rng = random.Random(f"finegrain/{seed}/people/{slot}")
        pid = 2 * slot + 1
        slot += 1
        # Two people of one slot are drawn until both are new, so no appearance is repeated.
        while True:
            swap, pair = _draw_slot(rng)
            looks = {person.looks for person in pair}
            if len(looks) == 2 and seen.isdisjoint(looks):
                break
        seen |= looks
        partners = (pid + 1, pid) if swap else (None, None)
        for offset, person in enumerate(pair):
            yield Identity(pid=pid + offset, person=person, swap=swap, swap_pid=partners[offset])


def _draw_slot(
    rng: random.Random,
) -> tuple[tuple[str, str] | None, tuple[Person, Person]]:
    if rng.random() >= SWAP_SHARE:
        return None, (draw_person(rng), draw_person(rng))
    while True:
        person = draw_person(rng, swappable=True)
        options = [pair for pair in wardrobe.SWAPS if _can_swap(person, pair)]
        if options:
            pair = options[0] if rng.random() < 0.75 else rng.choice(options)
            return pair, (person, swapped(person, pair))


def swapped(person: Person, pair: tuple[str, str]) -> Person:
    """The same person with the colours of two slots exchanged."""
    first, second = pair
    changes: dict[str, Any] = {
        COLOR_FIELDS[first]: person.color(second),
        COLOR_FIELDS[second]: person.color(first),
    }
    return replace(person, **changes)  # checks the names of the fields


def _can_swap(person: Person, pair: tuple[str, str]) -> bool:
    colors = {person.color(slot) for slot in pair}
    if None in colors or len(colors) < 2:
        return False
    if "lower" in pair and person.lower == "jeans" and not colors <= set(wardrobe.JEANS_COLOR):
        return False
    return colors.isdisjoint({person.upper_second_color, person.lower_second_color})


def draw_person(rng: random.Random, *, swappable: bool = False) -> Person:
    """One person with realistic, correlated attributes.

    Args:
        swappable: Draw the colours of lower and upper garment from the same distribution, so that
            the person with exchanged colours is equally likely.
    """
    gender = "woman" if rng.random() < 0.5 else "man"
    upper = pick(rng, wardrobe.UPPER[gender])
    warm = upper in wardrobe.WARM
    upper_color = pick(rng, wardrobe.upper_color(gender))
    pattern = pick(rng, wardrobe.PATTERN[upper])
    sleeves = pick(rng, wardrobe.SLEEVES[upper])
    lower = None if upper == "dress" else pick(rng, wardrobe.lower(gender, upper))
    lower_color = lower_pattern = lower_second = None
    if lower is not None:
        free = swappable and lower != "jeans"
        colors = wardrobe.upper_color(gender) if free else wardrobe.LOWER_COLOR[lower]
        lower_color = pick(rng, colors)
        lower_pattern = pick(rng, wardrobe.LOWER_PATTERN[lower] if pattern == "plain" else _PLAIN)
        lower_second = wardrobe.second_color(rng, lower_color, lower_pattern)
    hem = pick(rng, wardrobe.hem(upper, lower))
    shoes = pick(rng, wardrobe.shoes(gender, warm or lower in ("trousers", "jeans")))
    bag = wardrobe.none_or(pick(rng, wardrobe.BAG[gender]))
    hat = wardrobe.none_or(pick(rng, wardrobe.HAT))
    umbrella = rng.random() < wardrobe.UMBRELLA_SHARE
    opened = rng.random() < wardrobe.OPEN_SHARE.get(upper, 0.0)
    belted = rng.random() < wardrobe.BELT_SHARE.get(upper, 0.0)
    length = pick(rng, wardrobe.HAIR_LENGTH[gender])
    return Person(
        gender=gender,
        skin=pick(rng, wardrobe.SKIN),
        hair_color=pick(rng, wardrobe.HAIR_COLOR),
        hair_length=length,
        hair_style=pick(rng, wardrobe.HAIR_STYLE[length]),
        upper=upper,
        upper_color=upper_color,
        upper_pattern=pattern,
        upper_second_color=wardrobe.second_color(rng, upper_color, pattern),
        sleeves=sleeves,
        upper_open=opened,
        belt=belted and not opened,
        lower=lower,
        lower_color=lower_color,
        lower_pattern=lower_pattern,
        lower_second_color=lower_second,
        hem=hem,
        shoes=shoes,
        shoes_color=pick(rng, wardrobe.SHOES_COLOR[shoes]),
        bag=bag,
        bag_color=pick(rng, wardrobe.BAG_COLOR) if bag else None,
        hat=hat,
        hat_color=pick(rng, wardrobe.HAT_COLOR) if hat else None,
        umbrella_color=pick(rng, wardrobe.UMBRELLA_COLOR) if umbrella else None,
        stature=round(rng.gauss(1.0 if gender == "man" else 0.94, 0.03), 3),
        build=round(min(max(rng.gauss(1.0, 0.08), 0.86), 1.22), 3),
        tone=round(rng.uniform(-1.0, 1.0), 2),
    )


_PLAIN = {"plain": 1.0}


def pick(rng: random.Random, weights: Mapping[str, float]) -> str:
    """Draw a key; the values are its weights."""
    return rng.choices(tuple(weights), tuple(weights.values()))[0]
