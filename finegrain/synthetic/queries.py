"""Text queries with their ground truth as attribute predicates."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

AttributeValue = str | bool | None
Predicate = Mapping[str, AttributeValue | Collection[AttributeValue]]


@dataclass(frozen=True, slots=True)
class AttributeQuery:
    """The text of a query, and the attributes of relevant pictures.

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
    _query("woman in a striped dress", gender="woman", upper="dress", upper_pattern="striped"),
    _query("man in a black jacket", gender="man", upper="jacket", upper_color="black"),
    _query("person holding a red umbrella", umbrella_color="red"),
    _query("someone in a yellow jacket", upper="jacket", upper_color="yellow"),
    _query("person in a checked shirt", upper="shirt", upper_pattern="checked"),
    _query("somebody in a green or blue coat", upper="coat", upper_color=("green", "blue")),
    _query("striped t-shirt and jeans", upper="t-shirt", upper_pattern="striped", lower="jeans"),
    _query("woman in a blue dress", gender="woman", upper="dress", upper_color="blue"),
    _query("man in a red t-shirt", gender="man", upper="t-shirt", upper_color="red"),
    _query("person in a white hoodie", upper="hoodie", upper_color="white"),
    _query("person in red trousers", lower="trousers", lower_color="red"),
    _query("woman in a black coat", gender="woman", upper="coat", upper_color="black"),
    _query("man in a white coat", gender="man", upper="coat", upper_color="white"),
    _query("person in a yellow shirt", upper="shirt", upper_color="yellow"),
    _query(
        "red jacket and blue jeans",
        upper="jacket",
        upper_color="red",
        lower="jeans",
        lower_color="blue",
    ),
    _query("woman in a black skirt", gender="woman", lower="skirt", lower_color="black"),
    _query(
        "man with a backpack and black trousers",
        gender="man",
        bag="backpack",
        lower="trousers",
        lower_color="black",
    ),
    _query("person in a green coat", upper="coat", upper_color="green"),
)
"""Queries for garments with colours and patterns, and for larger carried things."""

DETAIL_QUERIES: tuple[AttributeQuery, ...] = (
    _query("woman with a brown handbag", gender="woman", bag="handbag", bag_color="brown"),
    _query("man wearing a baseball cap", gender="man", hat="cap"),
    _query("man in a t-shirt and shorts", gender="man", upper="t-shirt", lower="shorts"),
    _query("blonde woman with long hair", gender="woman", hair_color="blond", hair_length="long"),
    _query("person wearing a beanie and a coat", hat="beanie", upper="coat"),
    _query("person with a red backpack", bag="backpack", bag_color="red"),
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
"""Queries for smaller things: caps, bags by colour, shoes, hair, sleeves."""


def matches(attributes: Mapping[str, AttributeValue], predicate: Predicate) -> bool:
    """Whether a picture's attributes satisfy every part of a predicate."""
    return all(_allows(allowed, attributes.get(name)) for name, allowed in predicate.items())


def _allows(allowed: AttributeValue | Collection[AttributeValue], value: AttributeValue) -> bool:
    if allowed is None or isinstance(allowed, str | bool):
        return value == allowed
    return value in allowed
