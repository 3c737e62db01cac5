"""Made-up people and garments: drawn pictures with captions and known truth.

They stand in for datasets that may not be passed on: recipes shrink to them, tests
train on them, and the demo searches them.
"""

from __future__ import annotations

from finegrain.errors import require

# Naming the extra here keeps the plain imports plain.
require("cv2", extra="train")

from finegrain.synthetic.articles import Product, product  # noqa: E402
from finegrain.synthetic.captions import Caption, captions_of  # noqa: E402
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
    "Identity",
    "Person",
    "Product",
    "Rendering",
    "View",
    "captions_of",
    "identities",
    "matches",
    "product",
    "read_attributes",
    "render",
    "render_product",
    "render_with_regions",
    "view_of",
    "write_people",
    "write_products",
]
