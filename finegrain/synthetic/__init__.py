"""Synthetic people and garments: rendered pictures with captions and ground truth.

They replace datasets that may not be redistributed: tests train on them, the demo searches them,
and a tiny recipe uses them.
"""

from __future__ import annotations

from finegrain.errors import require

# The missing extra is named here, so that the imports below need no guard.
require("cv2", extra="train")

from finegrain.synthetic.articles import Product, product  # noqa: E402
from finegrain.synthetic.captions import Caption, captions_of  # noqa: E402
from finegrain.synthetic.film_writer import write_films  # noqa: E402
from finegrain.synthetic.films import FilmedScene, film, filmed_scene, seen_moments  # noqa: E402
from finegrain.synthetic.layout import AttributeRecord, read_attributes  # noqa: E402
from finegrain.synthetic.person import Identity, Person, identities  # noqa: E402
from finegrain.synthetic.products import render_product, write_products  # noqa: E402
from finegrain.synthetic.queries import (  # noqa: E402
    ATTRIBUTE_QUERIES,
    DETAIL_QUERIES,
    AttributeQuery,
    matches,
)
from finegrain.synthetic.render import Rendering, render, render_with_regions  # noqa: E402
from finegrain.synthetic.view import CAMERAS, Camera, View, view_of  # noqa: E402
from finegrain.synthetic.writer import write_people  # noqa: E402

__all__ = [
    "ATTRIBUTE_QUERIES",
    "CAMERAS",
    "DETAIL_QUERIES",
    "AttributeQuery",
    "AttributeRecord",
    "Camera",
    "Caption",
    "FilmedScene",
    "Identity",
    "Person",
    "Product",
    "Rendering",
    "View",
    "captions_of",
    "film",
    "filmed_scene",
    "identities",
    "matches",
    "product",
    "read_attributes",
    "render",
    "render_product",
    "render_with_regions",
    "seen_moments",
    "view_of",
    "write_films",
    "write_people",
    "write_products",
]
