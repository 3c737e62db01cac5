"""Words that captions use for colours, patterns, materials, garments and carried things.

Words of one family can describe the same thing: "navy" and "blue", "coat" and "jacket". Words of
two families of one kind exclude each other.
"""

from __future__ import annotations

from collections.abc import Mapping

Families = Mapping[str, tuple[str, ...]]

COLORS: Families = {
    "black": ("black",),
    "gray": ("gray", "grey", "charcoal", "silver"),
    "white": ("white", "ivory"),
    "beige": ("beige", "cream", "khaki", "tan", "camel"),
    "brown": ("brown", "chocolate"),
    "red": ("red", "burgundy", "maroon", "crimson", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow", "mustard", "gold", "golden"),
    "green": ("green", "olive", "mint", "teal"),
    "blue": ("blue", "navy", "turquoise"),
    "purple": ("purple", "violet", "lavender", "lilac"),
    "pink": ("pink", "fuchsia", "magenta"),
}

SAID_OF_THINGS: Mapping[str, Families] = {
    "color": COLORS,
    "pattern": {
        "striped": ("striped", "stripy", "stripey"),
        "checked": ("checked", "checkered", "plaid", "tartan", "gingham"),
        "dotted": ("dotted", "spotted", "polka-dot"),
        "floral": ("floral", "flowery", "flowered"),
        "plain": ("plain",),
    },
    "material": {
        "denim": ("denim",),
        "leather": ("leather",),
        "knitted": ("knitted", "knit", "wool", "woollen", "cashmere"),
        "cotton": ("cotton",),
        "linen": ("linen",),
        "chiffon": ("chiffon",),
        "silk": ("silk", "satin"),
        "velvet": ("velvet",),
    },
    "sleeves": {
        "long": ("long-sleeved", "long-sleeve"),
        "short": ("short-sleeved", "short-sleeve"),
        "none": ("sleeveless",),
    },
}
"""Adjectives by kind."""

THINGS: Mapping[str, Families] = {
    "lower garment": {
        "trousers": ("trousers", "pants", "jeans", "slacks", "chinos", "sweatpants", "joggers"),
        "shorts": ("shorts", "short pants"),
    },
    "footwear": {
        "sneakers": ("sneakers", "trainers", "running shoes", "sports shoes"),
        "boots": ("boots", "ankle boots"),
        "sandals": ("sandals", "flip-flops"),
        "heels": ("heels", "high heels"),
    },
    "headwear": {
        "cap": ("cap", "baseball cap"),
        "beanie": ("beanie", "knit hat", "woolly hat"),
    },
    "bag": {
        "backpack": ("backpack", "rucksack", "knapsack"),
        "handbag": (
            "handbag", "hand bag", "purse", "tote", "shoulder bag", "crossbody bag",
            "messenger bag",
        ),
        "suitcase": ("suitcase",),
    },
}  # fmt: skip
"""Nouns by where they are worn. The nouns of one kind exclude each other, and are all singular or
all plural."""

OTHER_THINGS: Families = {
    "outerwear": ("coat", "overcoat", "jacket", "parka", "blazer", "windbreaker"),
    "knitwear": ("sweater", "jumper", "pullover", "cardigan", "hoodie", "sweatshirt"),
    "shirt": ("shirt", "t-shirt", "tee", "tee shirt", "dress shirt", "blouse", "polo"),
    "dress": ("dress", "gown"),
    "skirt": ("skirt",),
    "shoes": ("shoes",),
    "hat": ("hat",),
    "bag": ("bag",),
    "umbrella": ("umbrella",),
    "scarf": ("scarf",),
    "vest": ("vest",),
    "suit": ("suit",),
    "belt": ("belt",),
    "socks": ("socks",),
    "leggings": ("leggings",),
    "hair": ("hair",),
}
"""Nouns that do not exclude others, as a coat can be worn over a shirt, and nouns that depend on
the wearer, such as a dress, which a model could guess without the picture."""
