"""Twenty text queries with their ground truth as attribute predicates."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

AttributeValue = str | bool | None
Predicate = Mapping[str, AttributeValue | Collection[AttributeValue]]


@dataclass(frozen=True, slots=True)
class AttributeQuery:
    """A query as a user types it, and what a right answer looks like.

    Attributes:
        predicate: Attribute -> allowed value, or a collection of allowed values.
    """

    text: str
    predicate: Predicate


def _query(
    text: str, /, **predicate: AttributeValue | Collection[AttributeValue]
) -> AttributeQuery:
    return AttributeQuery(text, predicate)


ATTRIBUTE_QUERIES: tuple[AttributeQuery, ...] = (
    _query("woman in red coat", gender="woman", upper="coat", upper_color="red"),
    _query(
        "man with a backpack and blue jeans",
        gender="man",
        bag="backpack",
        lower="jeans",
        lower_color="blue",
    ),
    _query("person holding a red umbrella", umbrella_color="red"),
    _query("woman in a striped dress", gender="woman", upper="dress", upper_pattern="striped"),
    _query("man in a black jacket", gender="man", upper="jacket", upper_color="black"),
    _query("someone in a yellow jacket", upper="jacket", upper_color="yellow"),
    _query("woman with a brown handbag", gender="woman", bag="handbag", bag_color="brown"),
    _query("man wearing a baseball cap", gender="man", hat="cap"),
    _query("person in a checked shirt", upper="shirt", upper_pattern="checked"),
    _query("woman in a black skirt", gender="woman", lower="skirt", lower_color="black"),
    _query("man in a t-shirt and shorts", gender="man", upper="t-shirt", lower="shorts"),
    _query("blonde woman with long hair", gender="woman", hair_color="blond", hair_length="long"),
    _query("person wearing a beanie and a coat", hat="beanie", upper="coat"),
    _query("somebody in a green or blue coat", upper="coat", upper_color=("green", "blue")),
    _query("person with a red backpack", bag="backpack", bag_color="red"),
    _query("striped t-shirt and jeans", upper="t-shirt", upper_pattern="striped", lower="jeans"),
    _query("woman in black boots", gender="woman", shoes="boots", shoes_color="black"),
    _query("man with a shoulder bag", gender="man", bag="shoulder bag"),
    _query(
        "woman in a long-sleeved plain dress",
        gender="woman",
        upper="dress",
        sleeves="long",
        upper_pattern="plain",
    ),
    _query(
        "white sneakers and black trousers",
        shoes="sneakers",
        shoes_color="white",
        lower="trousers",
        lower_color="black",
    ),
)


def matches(attributes: Mapping[str, AttributeValue], predicate: Predicate) -> bool:
    """Whether a picture's attributes satisfy every part of a predicate."""
    return all(_allows(allowed, attributes.get(name)) for name, allowed in predicate.items())


def _allows(allowed: AttributeValue | Collection[AttributeValue], value: AttributeValue) -> bool:
    if allowed is None or isinstance(allowed, str | bool):
        return value == allowed
    return value in allowed
