"""A feed with one example of each common fault, from its rows to sampled lists."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from finegrain.data.catalog import Shares
from finegrain.data.datasets import ShopCatalog
from finegrain.errors import DataError
from finegrain.evaluation.protocols import draw_candidates
from finegrain.records import ProblemKind
from finegrain.training.loader import Pairs

HEADER = "id,title,description,image_link,price,product_type,item_group_id"
TRAIN_ALL = Shares(train=1, val=0, test=0)


def jpeg(size=(8, 16), shade=0) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size, shade).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def feed(tmp_path):
    """Valid rows first, and one fault in each of the rows 8 to 14."""
    for name in ("1.jpg", "2.jpg", "3.jpg", "4.jpg"):
        (tmp_path / name).write_bytes(jpeg(shade=int(name[0])))
    (tmp_path / "wide.jpg").write_bytes(jpeg((5000, 5000)))
    Image.new("1", (9000, 8000)).save(tmp_path / "wider.png")
    (tmp_path / "words.jpg").write_bytes(b"<html>404</html>")
    rows = (
        b"a1,Red coat,,1.jpg,89.90 EUR,coat,",
        b"a2,Blue coat,,2.jpg,79.90 EUR,coat,",
        b"a3,Only hat,,3.jpg,19.90 EUR,hat,",
        b"a4,Thing,,4.jpg,9.90 EUR,,",
        b"a5,Wide poster,,wide.jpg,5.00 EUR,  ,",
        "a6,Café coat,,1.jpg,,coat,".encode(),
        b"a1,Red coat again,,2.jpg,1.00 EUR,coat,",
        b"b2,Priced in words,,2.jpg,ask us,coat,",
        b"b3,Gone,,gone.jpg,1.00 EUR,coat,",
        b"b4,Wider poster,,wider.png,1.00 EUR,coat,",
        b"b5,Caf\xe9,,2.jpg,1.00 EUR,coat,",
        b"b6,Cut off,,2.jpg",
        b"b7,No picture but words,,words.jpg,1.00 EUR,coat,",
    )
    path = tmp_path / "feed.csv"
    path.write_bytes(b"\n".join((HEADER.encode(), *rows)) + b"\n")
    return path


def read(feed, **options):
    return ShopCatalog(path=str(feed), shares=TRAIN_ALL, **options).splits()["train"]


def test_invalid_rows_are_named_and_the_rest_is_read(feed):
    split = read(feed, max_bad_share=0.6)
    assert [sample.captions[0] for sample in split.samples] == [
        "Red coat", "Blue coat", "Only hat", "Thing", "Wide poster", "Café coat",
        "Priced in words",
    ]  # fmt: skip
    assert "price" not in split.samples[-1].metadata
    why = {problem.where: problem.why for problem in split.problems}
    assert sorted(why) == sorted(f"feed.csv:{line}" for line in range(8, 15))
    for line, part in (
        (8, "has the id 'a1' of feed.csv:2 again"),
        (9, "got 'ask us'"),
        (10, "'gone.jpg' not found"),
        (11, "is too large (9000 x 8000 pixels)"),
        (12, "holds bytes that are not UTF-8"),
        (13, "has 4 cells, expected 7"),
        (14, "not a picture of a known format"),
    ):
        assert part in why[f"feed.csv:{line}"]
    assert str(split).endswith("6 left out")


def test_a_feed_with_mostly_invalid_rows_is_refused(feed):
    with pytest.raises(DataError, match=r"at most 10% to be left out, got 6 of 13: feed\.csv:"):
        read(feed)


def test_rows_of_two_encodings_in_one_file_are_read(feed):
    split = read(feed, max_bad_share=0.6, fallback_encoding="cp1252")
    written = [sample.captions[0] for sample in split.samples]
    assert (written[5], written[-1]) == ("Café coat", "Café")
    assert len(split.problems) == 6
    assert [p.kind for p in split.problems].count(ProblemKind.VALUE) == 1


def test_a_very_large_picture_is_decoded_at_a_smaller_size(feed):
    from finegrain.preprocess import ImageTransform, load_image

    wide = read(feed, max_bad_share=0.6).samples[4].image
    assert ImageTransform(height=32, width=16)(load_image(wide)).shape == (3, 32, 16)


def test_products_without_a_category_belong_to_no_group(feed):
    split = read(feed, max_bad_share=0.6)
    assert [sample.metadata["subcategory"] for sample in split.samples] == [
        "coat", "coat", "hat", None, None, "coat", "coat",
    ]  # fmt: skip
    groups = Pairs(split, None, None, seed=0).groups
    assert groups is not None
    assert groups.tolist() == [1, 1, 2, 0, 0, 1, 1]


def test_a_category_of_one_product_has_no_negatives(feed):
    candidates = draw_candidates(read(feed, max_bad_share=0.6))
    assert len(candidates.lists) == 4
    told = sorted(map(str, candidates.problems))
    assert len(told) == 3
    assert "is the only product of the subcategory 'hat'" in "; ".join(told)
    assert sum("has no subcategory" in problem for problem in told) == 2
