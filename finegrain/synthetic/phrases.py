"""The words of captions."""

from __future__ import annotations

SUBJECT: dict[str, tuple[str, ...]] = {
    "woman": ("woman", "woman", "woman", "lady", "girl", "female", "young woman"),
    "man": ("man", "man", "man", "guy", "male", "gentleman", "young man"),
}
PRONOUN = {"woman": "she", "man": "he"}
POSSESSIVE = {"woman": "her", "man": "his"}

GARMENT: dict[str, tuple[str, ...]] = {
    "coat": ("coat", "coat", "overcoat", "long coat"),
    "jacket": ("jacket", "jacket", "zip-up jacket"),
    "t-shirt": ("t-shirt", "t-shirt", "tee", "tee shirt"),
    "shirt": ("shirt", "shirt", "button-up shirt", "collared shirt"),
    "hoodie": ("hoodie", "hoodie", "hooded sweatshirt"),
    "dress": ("dress",),
    "trousers": ("trousers", "pants", "pants", "slacks"),
    "jeans": ("jeans", "jeans", "denim jeans"),
    "shorts": ("shorts", "short pants"),
    "skirt": ("skirt",),
    "sneakers": ("sneakers", "trainers", "sports shoes", "running shoes"),
    "boots": ("boots", "boots", "ankle boots"),
    "shoes": ("shoes", "shoes", "leather shoes"),
    "sandals": ("sandals",),
    "backpack": ("backpack", "backpack", "rucksack"),
    "handbag": ("handbag", "handbag", "purse", "hand bag"),
    "shoulder bag": ("shoulder bag", "crossbody bag", "messenger bag"),
    "cap": ("cap", "baseball cap"),
    "beanie": ("beanie", "knit hat", "woolly hat"),
    "hat": ("hat", "brimmed hat", "hat with a brim"),
}

PATTERN: dict[str, tuple[str, ...]] = {
    "striped": ("striped", "stripy"),
    "checked": ("checked", "checkered", "plaid"),
}
LENGTH: dict[str, dict[str, tuple[str, ...]]] = {
    "skirt": {"short": ("short",), "knee": ("knee-length",), "long": ("long",)},
    "dress": {"short": ("short",), "knee": ("knee-length",), "long": ("long",)},
    "trousers": {"cropped": ("cropped", "ankle-length"), "long": ("long",)},
    "jeans": {"cropped": ("cropped",), "long": ("long",)},
    "shorts": {"short": ("short",), "knee": ("knee-length",)},
}
HAIR_WORD: dict[str, tuple[str, ...]] = {
    "black": ("black", "black", "dark"),
    "brown": ("brown", "brown", "dark brown"),
    "blond": ("blond", "blonde", "fair"),
    "red": ("red", "ginger"),
    "grey": ("grey", "gray"),
}
HAIR_LENGTH: dict[str, tuple[str, ...]] = {
    "short": ("short", "short", "cropped"),
    "medium": ("shoulder-length", "medium-length"),
    "long": ("long", "long"),
}
HAIRED: dict[str, tuple[str, ...]] = {
    "black": ("dark-haired", "black-haired"),
    "brown": ("brown-haired",),
    "blond": ("blond", "fair-haired"),
    "red": ("red-haired", "ginger"),
    "grey": ("grey-haired", "gray-haired"),
}
TIED: dict[str, tuple[str, ...]] = {
    "ponytail": (
        "{poss} hair tied back",
        "{poss} {hair} hair in a ponytail",
        "a {hair} ponytail",
    ),
    "bun": ("{poss} hair tied up", "{poss} {hair} hair in a bun", "a {hair} bun"),
}

WALKING: dict[str, tuple[str, ...]] = {
    "front": (
        "walking towards the camera",
        "walking forward",
        "coming towards us",
        "walking",
    ),
    "side": ("walking past", "walking sideways to the camera", "striding along", "walking"),
    "back": ("walking away from the camera", "walking away", "seen from behind while walking"),
}
STANDING: dict[str, tuple[str, ...]] = {
    "front": ("standing and facing the camera", "standing still", "facing the camera"),
    "side": ("standing in profile", "standing side-on to the camera", "standing still"),
    "back": (
        "standing with {poss} back to the camera",
        "facing away from the camera",
        "seen from behind",
    ),
}
HOLD_BAG: dict[str, tuple[str, ...]] = {
    "backpack": (
        "carrying {np}",
        "with {np} on {poss} back",
        "with {np}",
    ),
    "handbag": ("carrying {np}", "holding {np} in {poss} hand", "with {np}", "with {np} in hand"),
    "shoulder bag": (
        "carrying {np}",
        "with {np} across {poss} body",
        "with {np} over {poss} shoulder",
        "with {np}",
    ),
}
HOLD_UMBRELLA = (
    "holding {np}",
    "under {np}",
    "carrying an open {bare}",
    "sheltering under {np}",
    "with {np} overhead",
)

GLIMPSE = (
    "somewhere in this picture there is {s}",
    "the picture shows {s}",
    "you can see {s} in the street",
    "{s}, as seen by a street camera",
    "we are looking for {s}",
    "{s} was here a moment ago",
    "there goes {s}",
    "this is {s}",
)
