from __future__ import annotations

import csv

import pytest
from fixtures.shop_layouts import write_merchant, write_shopify
from PIL import Image

from finegrain.data.catalog import GOOGLE_MERCHANT, SHOPIFY, read_feed
from finegrain.errors import DataError
from finegrain.synthetic.articles import product

COLUMNS = ("Handle", "Title", "Body (HTML)", "Type", "Variant Price", "Image Src")


@pytest.fixture
def shop(tmp_path):
    """A folder with pictures 1.jpg to 3.jpg in images/."""
    (tmp_path / "images").mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (8, 16), (60 * number, 0, 0)).save(tmp_path / "images" / f"{number}.jpg")
    return tmp_path


def export(shop, *rows, encoding="utf-8"):
    """A Shopify export; its line numbers start from 2."""
    table = shop / "export.csv"
    with table.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows])
    return table


def reasons(split):
    return {problem.where: problem.why for problem in split.problems}


def test_rows_of_a_shopify_product_are_combined(tmp_path):
    table = write_shopify(tmp_path, products=3, views=2)
    split = read_feed(table, SHOPIFY, images_root=tmp_path / "images")["all"]
    handles = [product(number).product_id.lower() for number in (0, 0, 1, 1, 2, 2)]
    assert [sample.pid for sample in split.samples] == handles
    item, (first, second) = product(0), split.samples[:2]
    assert [s.image.name for s in (first, second)] == [f"{item.product_id}_{v}.jpg" for v in (0, 1)]
    assert first.captions == second.captions
    assert first.captions[0] == item.title
    assert first.captions[1].startswith(f"{item.color}, {item.pattern}. {item.category} & co")
    assert first.metadata == {
        "product_id": item.product_id.lower(), "brand": "Atelier",
        "category": "Apparel & Accessories > Clothing", "subcategory": item.category,
        "tags": f"{item.color}, {item.pattern}", "sku": item.product_id,
        "price": float(item.price), "currency": None,
    }  # fmt: skip
    assert not split.problems


def test_the_newer_template_of_shopify_is_read(shop):
    table = shop / "new.csv"
    table.write_text(
        "Title,URL handle,Description,Type,Price,Product image URL\n"
        "Coat,coat,<p>Warm</p>,Coats,9.90,images/1.jpg\n"
    )
    (sample,) = read_feed(table, SHOPIFY)["all"].samples
    assert sample.captions == ("Coat", "Warm")
    assert (sample.metadata["subcategory"], sample.metadata["price"]) == ("Coats", 9.9)


@pytest.mark.parametrize("xml", [False, True])
def test_sizes_of_a_merchant_product_are_one_product(tmp_path, xml):
    feed = write_merchant(tmp_path, products=3, views=3, xml=xml)
    split = read_feed(feed, GOOGLE_MERCHANT, images_root=tmp_path / "images")["all"]
    assert split.identities().tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    item, metadata = product(0), split.samples[0].metadata
    assert (metadata["price"], metadata["currency"]) == (float(item.price), "EUR")
    assert (metadata["color"], metadata["subcategory"]) == (item.color, item.category)
    assert not split.problems


def test_colours_of_a_merchant_group_are_different_products(shop):
    feed = shop / "feed.tsv"
    rows = ["id\ttitle\timage link\titem group id\tcolor",
            "1\tCoat\timages/1.jpg\tg\tred", "2\tCoat\timages/2.jpg\tg\tBlue",
            "3\tCoat\timages/3.jpg\tg\tblue"]  # fmt: skip
    feed.write_text("\n".join(rows) + "\n")
    samples = read_feed(feed, GOOGLE_MERCHANT)["all"].samples
    assert [sample.pid for sample in samples] == ["g/red", "g/blue", "g/blue"]


def test_invalid_rows_are_problems_with_their_line_and_the_rest_is_read(shop):
    Image.new("1", (9000, 8000)).save(shop / "images" / "huge.png")
    (shop / "images" / "broken.jpg").write_bytes(b"no picture")
    table = export(
        shop,
        ("a", "Coat", "", "", "12,50 €", "images/1.jpg"),
        ("a", "", "", "", "", "images/gone.jpg"),
        ("b", "Dress", "", "", "ask us", "images/2.jpg"),
        ("b", "", "", "", "", "images/3.jpg"),
        ("a", "Another", "", "", "1", "images/2.jpg"),
        ("c", "Skirt", "", "", "1", ""),
        ("", "Hat", "", "", "1", "images/2.jpg"),
        ("d", "", "", "", "1", "images/2.jpg"),
        ("e", "Huge", "", "", "1", "images/huge.png"),
        ("f", "Broken", "", "", "1", "images/broken.jpg"),
        ("g", "Out", "", "", "1", "../secret.jpg"),
        ("h", "Good", "", "", "", "images/3.jpg"),
    )
    split = read_feed(table, SHOPIFY)["all"]
    assert [sample.captions for sample in split.samples] == [
        ("Coat",), ("Dress",), ("Dress",), ("Good",),
    ]  # fmt: skip
    coat, dress, _, good = split.samples
    assert "price" not in dress.metadata
    assert (coat.metadata["price"], coat.metadata["currency"]) == (12.5, "EUR")
    assert coat.metadata["subcategory"] is None
    assert "price" not in good.metadata
    why = reasons(split)
    assert list(why) == [f"export.csv:{line}" for line in (4, 6, 8, 9, 3, 7, 10, 11, 12)]
    assert "'images/gone.jpg' not found under" in why["export.csv:3"]
    assert "got 'ask us'" in why["export.csv:4"]
    assert why["export.csv:6"] == "has the handle 'a' of export.csv:2 again"
    assert why["export.csv:7"] == "has no picture"
    assert why["export.csv:8"] == "has no handle"
    assert why["export.csv:9"] == "has no title"
    assert "is too large (9000 x 8000 pixels)" in why["export.csv:10"]
    assert "not a picture of a known format" in why["export.csv:11"]
    assert "expected a path relative to" in why["export.csv:12"]


def test_a_repeated_merchant_id_is_a_problem(shop):
    feed = shop / "feed.csv"
    feed.write_text("id,title,image_link\n1,Coat,images/1.jpg\n1,Coat,images/2.jpg\n")
    (problem,) = read_feed(feed, GOOGLE_MERCHANT)["all"].problems
    assert str(problem) == "feed.csv:3: has the id '1' of feed.csv:2 again"


def test_urls_are_not_fetched(shop):
    table = export(shop, ("a", "Coat", "", "", "1", "https://shop.example/files/1.jpg?v=3"))
    with pytest.raises(DataError, match=r"is a URL, and finegrain downloads none\. .* images_root"):
        read_feed(table, SHOPIFY)
    (sample,) = read_feed(table, SHOPIFY, images_root=shop / "images")["all"].samples
    assert sample.image == shop / "images" / "1.jpg"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://shop.example/new/1.jpg", "'1.jpg' is the file name of"),
        ("https://[broken/1.jpg", "is not a valid URL"),
        ("https://shop.example/%2e%2e", "expected a path relative to"),
        ("https://shop.example/..%5c1.jpg", "expected a path relative to"),
        ("https://shop.example/", "not found under"),
    ],
)
def test_urls_without_a_picture_or_with_an_ambiguous_one_are_problems(shop, url, why):
    rows = [("a", "Coat", "", "", "1", "https://shop.example/old/1.jpg"),
            ("b", "Coat", "", "", "1", url)]  # fmt: skip
    split = read_feed(export(shop, *rows), SHOPIFY, images_root=shop / "images")["all"]
    assert len(split) == 1
    assert why in split.problems[0].why


def test_other_encodings_are_read(shop):
    rows = [("a", "Café", "", "", "1", "images/1.jpg"), ("b", "Coat", "", "", "1", "images/2.jpg")]
    assert len(read_feed(export(shop, *rows, encoding="utf-8-sig"), SHOPIFY)["all"]) == 2
    table = export(shop, *rows, encoding="latin-1")
    split = read_feed(table, SHOPIFY)["all"]
    assert list(reasons(split)) == ["export.csv:2"]
    assert "holds bytes that are not UTF-8; they may be cp" in reasons(split)["export.csv:2"]
    split = read_feed(table, SHOPIFY, fallback_encoding="latin-1")["all"]
    assert [sample.captions for sample in split.samples] == [("Café",), ("Coat",)]
    split = read_feed(table, SHOPIFY, fallback_encoding="ascii")["all"]
    assert reasons(split) == {"export.csv:2": "holds bytes that are not ASCII"}
    with pytest.raises(DataError, match="the name of an encoding such as"):
        read_feed(table, SHOPIFY, fallback_encoding="no-such")


BOMB = b"""<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><rss><channel><item><id>&b;</id></item></channel></rss>"""
FILE = b"""<!DOCTYPE rss [<!ENTITY x SYSTEM "file:///etc/passwd">]><rss><item><id>&x;</id></item></rss>"""


@pytest.mark.parametrize("content", [BOMB, FILE, BOMB.decode().encode("utf-16")])
def test_a_document_type_is_refused(shop, content):
    feed = shop / "feed.xml"
    feed.write_bytes(content)
    with pytest.raises(DataError, match="declares a document type"):
        read_feed(feed, GOOGLE_MERCHANT)


def test_invalid_xml_and_a_feed_without_products_are_refused(shop):
    feed = shop / "feed.xml"
    feed.write_text("<rss><item>")
    with pytest.raises(DataError, match="expected XML in"):
        read_feed(feed, GOOGLE_MERCHANT)
    feed.write_text("<rss/>")
    with pytest.raises(DataError, match="it has no rows"):
        read_feed(feed, GOOGLE_MERCHANT)


def test_an_atom_feed_is_read_with_line_numbers(shop):
    feed = shop / "feed.xml"
    feed.write_text(
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0">\n'
        "<title>Shop</title>\n"
        "<entry><g:id>1</g:id><title>Coat</title><g:image_link>images/1.jpg</g:image_link>"
        "<g:additional_image_link>images/2.jpg</g:additional_image_link>"
        "<g:additional_image_link>images/3.jpg</g:additional_image_link></entry>\n"
        "<entry><g:id>2</g:id><title>Hat</title><g:price>?</g:price></entry>\n</feed>"
    )
    split = read_feed(feed, GOOGLE_MERCHANT)["all"]
    assert [sample.image.name for sample in split.samples] == ["1.jpg", "2.jpg", "3.jpg"]
    assert list(reasons(split)) == ["feed.xml:4"]
