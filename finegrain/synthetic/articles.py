"""Articles of a synthetic shop, with their titles and prices."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, replace

from finegrain.synthetic.palette import COLORS
from finegrain.synthetic.person import Person, draw_person, pick
from finegrain.synthetic.trim import Trim, draw_trim, phrases


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of product.

    Attributes:
        share: Weight in random draws.
        span: Lowest and highest point in body units.
        half_width: Half of its width in body units.
        nouns: Names that sellers use.
        materials: Possible materials.
        price: Lowest and highest price, in whole units of money.
    """

    share: float
    span: tuple[float, float]
    half_width: float
    nouns: tuple[str, ...]
    materials: tuple[str, ...]
    price: tuple[int, int]


KINDS: dict[str, Kind] = {
    "coat": Kind(
        0.14, (0.27, 0.87), 0.24, ("coat", "overcoat"), ("wool", "wool-blend", "cotton"), (89, 299)
    ),
    "jacket": Kind(
        0.13,
        (0.45, 0.87),
        0.25,
        ("jacket", "zip jacket"),
        ("nylon", "cotton", "leather"),
        (49, 219),
    ),
    "hoodie": Kind(0.10, (0.44, 0.88), 0.25, ("hoodie",), ("cotton", "fleece"), (29, 89)),
    "shirt": Kind(0.12, (0.44, 0.87), 0.24, ("shirt",), ("cotton", "linen", "poplin"), (25, 99)),
    "t-shirt": Kind(0.12, (0.47, 0.86), 0.22, ("t-shirt", "tee"), ("cotton", "jersey"), (9, 39)),
    "dress": Kind(0.13, (0.09, 0.85), 0.25, ("dress",), ("cotton", "viscose", "linen"), (35, 149)),
    "trousers": Kind(
        0.08, (0.02, 0.635), 0.17, ("trousers", "pants"), ("cotton", "wool", "twill"), (35, 129)
    ),
    "jeans": Kind(0.06, (0.02, 0.635), 0.17, ("jeans",), ("denim",), (39, 129)),
    "shorts": Kind(0.04, (0.22, 0.635), 0.17, ("shorts",), ("cotton", "linen"), (19, 59)),
    "skirt": Kind(0.08, (0.09, 0.645), 0.19, ("skirt",), ("cotton", "wool", "viscose"), (25, 89)),
}
LOWER = ("trousers", "jeans", "shorts", "skirt")
ALL_COLORS = tuple(COLORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One article of a catalogue; ``person`` has its appearance."""

    product_id: str
    title: str
    category: str
    color: str
    pattern: str
    sleeves: str
    sleeve_color: str
    hem_color: str
    print: str
    print_color: str
    stripe_color: str
    knee_color: str
    gender: str
    price: str
    person: Person
    trim: Trim


def product(index: int, *, seed: int = 0, colors: Collection[str] = ALL_COLORS) -> Product:
    """Article number ``index`` (from 0) of the catalogue of a seed.

    Args:
        colors: Colours of the shop. With few colours, many articles differ only in which part
            has which colour. Jeans stay blue, black or grey.
    """
    rng = random.Random(f"finegrain/{seed}/product/{index}")
    category = pick(rng, {name: kind.share for name, kind in KINDS.items()})
    slot = "lower" if category in LOWER else "upper"
    person = draw_person(rng)
    while getattr(person, slot) != category:
        person = draw_person(rng)
    person = replace(person, stature=1.0, build=1.0, umbrella_color=None, bag=None, bag_color=None)
    if category != "jeans" and not set(ALL_COLORS) <= set(colors):
        person = _recolored(rng, person, slot, colors)
    color = person.color(slot)
    pattern = person.lower_pattern if slot == "lower" else person.upper_pattern
    assert color is not None
    assert pattern is not None
    kind = KINDS[category]
    trim = draw_trim(rng, category, (color, _second_color(person, slot)), colors)
    if trim.print:  # it would be in the air in front of an open coat
        person = replace(person, upper_open=False)
    return Product(
        product_id=f"P{index + 1:06d}",
        title=_title(rng, person, trim, category, slot),
        category=category,
        color=color,
        pattern=pattern,
        sleeves=person.sleeves if slot == "upper" else "",
        sleeve_color=trim.sleeves or "",
        hem_color=trim.hem or "",
        print=trim.print or "",
        print_color=trim.print_color or "",
        stripe_color=trim.stripes or "",
        knee_color=trim.knees or "",
        gender=person.gender,
        price=f"{rng.randrange(*kind.price)}.{rng.choice(('00', '50', '90', '95', '99'))}",
        person=person,
        trim=trim,
    )


def _recolored(rng: random.Random, person: Person, slot: str, colors: Collection[str]) -> Person:
    body, second = rng.sample(sorted(colors), 2)
    second_color = _second_color(person, slot) and second
    if slot == "lower":
        return replace(person, lower_color=body, lower_second_color=second_color)
    return replace(person, upper_color=body, upper_second_color=second_color)


def _second_color(person: Person, slot: str) -> str | None:
    return person.lower_second_color if slot == "lower" else person.upper_second_color


def _title(rng: random.Random, person: Person, trim: Trim, category: str, slot: str) -> str:
    kind = KINDS[category]
    color = person.color(slot)
    second = _second_color(person, slot)
    pattern = person.lower_pattern if slot == "lower" else person.upper_pattern
    owner = "Women's" if person.gender == "woman" else "Men's"
    look = f"{color}"
    if pattern != "plain":
        look = rng.choice((f"{color} and {second} {pattern}", f"{pattern} {color}"))
    length = {"short": "short ", "knee": "knee-length ", "long": "long "}
    reach = length.get(person.hem, "") if category in ("skirt", "dress") else ""
    title = f"{owner} {reach}{look} {rng.choice(kind.materials)} {rng.choice(kind.nouns)}"
    extras = list(phrases(trim, category, person.sleeves))
    if person.belt and slot == "upper":
        extras.append("a belt")
    if category == "hoodie" and rng.random() < 0.3:
        extras.append("a hood")
    if slot == "upper" and not trim.sleeves and rng.random() < 0.7:
        extras.append(f"{person.sleeves} sleeves")
    if not extras:
        return title
    rng.shuffle(extras)
    *most, last = extras
    return f"{title} with {', '.join(most)} and {last}" if most else f"{title} with {last}"
