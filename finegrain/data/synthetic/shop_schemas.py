"""A handful of made-up garments in the exact layout of each fashion dataset and feed."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

from finegrain.data.synthetic.articles import LOWER, Product, product
from finegrain.data.synthetic.canvas import Pixels
from finegrain.data.synthetic.jpeg import write_jpeg
from finegrain.data.synthetic.products import render_product
from finegrain.errors import require

SIZE = (64, 48)
SHOP = "https://shop.example"
MERCHANT_NAMESPACE = "http://base.google.com/ns/1.0"
_GENDERS = {"man": "MEN", "woman": "WOMEN"}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One picture of a garment."""

    item: Product
    index: int
    number: int

    @property
    def file(self) -> str:
        return f"{self.item.product_id}_{self.index}.jpg"

    def pixels(self, size: tuple[int, int] = SIZE) -> Pixels:
        return render_product(self.item, self.index, size=size)

    def jpeg(self) -> bytes:
        bgr = cv2.cvtColor(self.pixels(), cv2.COLOR_RGB2BGR)
        return bytes(cv2.imencode(".jpg", bgr)[1].tobytes())


def views_of(products: int, views: int, *, first: int = 0, seed: int = 0) -> list[View]:
    """Pictures of garments, those of one side by side."""
    return [
        View(item=product(first + index, seed=seed), index=view, number=index * views + view)
        for index in range(products)
        for view in range(views)
    ]


def category_of(item: Product) -> str:
    """The coarser kind of a garment."""
    return "BOTTOMS" if item.category in LOWER else "TOPS"


def description_of(item: Product) -> str:
    """What a shop tells of a garment, in HTML."""
    sleeves = f"<li>{item.sleeves} sleeves</li>" if item.sleeves else ""
    return (
        f"<p>{item.color}, {item.pattern}.</p><ul><li>{item.category} &amp; co</li>{sleeves}</ul>"
    )


def write_fashion_gen(root: Path, *, train: int = 4, val: int = 3, views: int = 2) -> Path:
    """Fashion-Gen: ``fashiongen_256_256_{train,validation}.h5`` of 256 by 256 pictures."""
    h5py = require("h5py", "fashion")
    root.mkdir(parents=True, exist_ok=True)
    for name, count, first in (("train", train, 0), ("validation", val, train)):
        shown = views_of(count, views, first=first)
        texts: Mapping[str, Callable[[View], str]] = {
            "input_brand": lambda view: "Maison Éclair",
            "input_category": lambda view: category_of(view.item),
            "input_composition": lambda view: "100% cotton.",
            "input_concat_description": lambda view: f"{view.item.title}. {view.item.color}",
            "input_department": lambda view: "CLOTHING",
            "input_description": lambda view: description_of(view.item),
            "input_gender": lambda view: _GENDERS[view.item.gender].title(),
            "input_name": lambda view: view.item.title,
            "input_pose": lambda view: f"id_gridfs_{view.index + 1}",
            "input_season": lambda view: "SS2018",
            "input_subcategory": lambda view: view.item.category.upper(),
        }
        with h5py.File(root / f"fashiongen_256_256_{name}.h5", "w") as file:
            for key, text in texts.items():
                rows = [[text(view).encode("iso-8859-1")] for view in shown]
                file[key] = np.array(rows, dtype="S400")
            numbers = [[view.number] for view in shown]
            file["index"] = file["index_2"] = np.array(numbers, np.int64)
            file["input_image"] = np.stack([view.pixels((256, 256)) for view in shown])
            file["input_msrpUSD"] = np.array([[float(v.item.price)] for v in shown], np.float32)
            file["input_productID"] = np.array(
                [[int(view.item.product_id[1:])] for view in shown], np.int64
            )
    return root


def write_fashion_iq(root: Path, *, triplets: int = 2) -> Path:
    """FashionIQ: captions and lists for each category and split, and ``images/ASIN.jpg``."""
    for folder in ("captions", "image_splits", "images"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    first = 0
    for split in ("train", "val", "test"):
        for category in ("dress", "shirt", "toptee"):
            # One more than the triplets name: the split's gallery is larger than the union.
            shown = views_of(triplets + 2, 1, first=first)
            first += len(shown)
            names = [f"B{view.item.product_id[1:]:0>9}" for view in shown]
            for name, view in zip(names, shown, strict=True):
                write_jpeg(root / "images" / f"{name}.jpg", view.pixels())
            records = [
                {
                    "target": names[number + 1],
                    "candidate": names[number],
                    "captions": [f"is {shown[number + 1].item.color}", "has another shape"],
                }
                for number in range(triplets)
            ]
            if split == "test":
                records = [{k: r[k] for k in ("candidate", "captions")} for r in records]
            _write_json(root / "captions" / f"cap.{category}.{split}.json", records)
            _write_json(root / "image_splits" / f"split.{category}.{split}.json", names)
    return root


def write_deepfashion_multimodal(root: Path, *, products: int = 12, views: int = 2) -> Path:
    """DeepFashion-MultiModal: ``captions.json``, ``labels/`` and ``images/``."""
    captions, shapes, fabrics, patterns = {}, [], [], []
    for view in views_of(products, views):
        item, side = view.item, ("front", "back")[view.index % 2]
        name = (
            f"{_GENDERS[item.gender]}-{item.category.title().replace('-', '_')}-id_"
            f"{int(item.product_id[1:]):08d}-01_{view.index + 1}_{side}.jpg"
        )
        write_jpeg(root / "images" / name, view.pixels())
        captions[name] = f"The garment is a {item.color} {item.category}. {item.title}."
        sleeves = {"short": 1, "long": 3}.get(item.sleeves, 5)
        shapes.append(f"{name} {sleeves} 4 3 0 4 2 2 2 4 7 2 1")
        fabrics.append(f"{name} 1 7 7")
        patterns.append(f"{name} {2 if item.pattern == 'striped' else 3} 7 7")
    _write_json(root / "captions.json", captions)
    for path, lines in (
        ("shape/shape_anno_all.txt", shapes),
        ("texture/fabric_ann.txt", fabrics),
        ("texture/pattern_ann.txt", patterns),
    ):
        file = root / "labels" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def write_shopify(root: Path, *, products: int = 4, views: int = 2) -> Path:
    """A Shopify export with URLs, its pictures downloaded to ``images/``; returns the CSV."""
    header = (
        "Handle", "Title", "Body (HTML)", "Vendor", "Product Category", "Type", "Tags",
        "Published", "Option1 Name", "Option1 Value", "Variant SKU", "Variant Price",
        "Image Src", "Image Position", "Image Alt Text",
    )  # fmt: skip
    rows = []
    for view in _with_images(root, products, views):
        item = view.item
        about: Sequence[str] = ("",) * 11
        if view.index == 0:
            about = (
                item.title, description_of(item), "Atelier", "Apparel & Accessories > Clothing",
                item.category, f"{item.color}, {item.pattern}", "true", "Size", "M",
                item.product_id, item.price,
            )  # fmt: skip
        image = f"{SHOP}/files/{view.file}?v=1"
        rows.append((item.product_id.lower(), *about, image, str(view.index + 1), ""))
    return _write_table(root / "products_export.csv", header, rows)


def write_merchant(root: Path, *, products: int = 4, views: int = 2, xml: bool = False) -> Path:
    """A Google Merchant feed of two sizes a product, in TSV or RSS; returns the file."""
    shown = _with_images(root, products, views)
    items = []
    for first in shown[::views]:
        urls = [f"{SHOP}/{view.file}" for view in shown[first.number : first.number + views]]
        items += [_merchant_item(first.item, size, urls) for size in ("S", "M")]
    if not xml:
        columns = tuple(items[0])
        rows = [tuple(item[column] for column in columns) for item in items]
        return _write_table(root / "feed.tsv", columns, rows, delimiter="\t")
    ElementTree.register_namespace("g", MERCHANT_NAMESPACE)
    rss = ElementTree.Element("rss", version="2.0")
    channel = ElementTree.SubElement(rss, "channel")
    ElementTree.SubElement(channel, "title").text = "A shop"
    for item in items:
        element = ElementTree.SubElement(channel, "item")
        for column, text in item.items():
            for part in text.split(",") if column.startswith("additional") else [text]:
                child = ElementTree.SubElement(element, f"{{{MERCHANT_NAMESPACE}}}{column}")
                child.text = part
        shipping = ElementTree.SubElement(element, f"{{{MERCHANT_NAMESPACE}}}shipping")
        ElementTree.SubElement(shipping, f"{{{MERCHANT_NAMESPACE}}}price").text = "4.90 EUR"
    ElementTree.ElementTree(rss).write(root / "feed.xml", encoding="utf-8", xml_declaration=True)
    return root / "feed.xml"


def _merchant_item(item: Product, size: str, urls: Sequence[str]) -> dict[str, str]:
    return {
        "id": f"{item.product_id}-{size}",
        "title": item.title,
        "description": f"{item.title} in size {size}",
        "link": f"{SHOP}/{item.product_id}",
        "image_link": urls[0],
        "additional_image_link": ",".join(urls[1:]),
        "item_group_id": item.product_id,
        "color": item.color,
        "pattern": item.pattern,
        "material": "cotton",
        "size": size,
        "gender": {"man": "male", "woman": "female"}[item.gender],
        "age_group": "adult",
        "google_product_category": "Apparel & Accessories > Clothing",
        "product_type": item.category,
        "availability": "in_stock",
        "price": f"{item.price} EUR",
    }


def write_image_folder(root: Path, *, products: int = 4, metadata: str = "metadata.csv") -> Path:
    """ImageFolder: ``train/`` and ``validation/`` with metadata each, in CSV or JSON lines."""
    for split, first in (("train", 0), ("validation", products)):
        folder = root / split
        rows = []
        for view in views_of(products, 1, first=first):
            write_jpeg(folder / view.file, view.pixels())
            item = view.item
            rows.append((view.file, item.title, item.product_id, item.category, item.price))
        header = ("file_name", "text", "product_id", "category", "price")
        if metadata.endswith(".csv"):
            _write_table(folder / metadata, header, rows)
        else:
            lines = (json.dumps(dict(zip(header, row, strict=True))) for row in rows)
            (folder / metadata).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def write_parquet(root: Path, *, products: int = 4) -> Path:
    """A Parquet table with the pictures inside, as Hugging Face writes it; returns the file."""
    pyarrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
    shown = views_of(products, 1)
    root.mkdir(parents=True, exist_ok=True)
    table = {
        "image": [{"bytes": view.jpeg(), "path": view.file} for view in shown],
        "text": [view.item.title for view in shown],
        "price": [float(view.item.price) for view in shown],
    }
    parquet.write_table(pyarrow.table(table), root / "train-00000-of-00001.parquet")
    return root / "train-00000-of-00001.parquet"


def write_webdataset(root: Path, *, products: int = 4, shards: int = 2) -> Path:
    """WebDataset: shards ``train-000000.tar`` of ``.jpg``, ``.txt`` and ``.json``."""
    root.mkdir(parents=True, exist_ok=True)
    shown = views_of(products, 1)
    for shard in range(shards):
        with tarfile.open(root / f"train-{shard:06d}.tar", "w") as archive:
            for view in shown[shard::shards]:
                about = {"category": view.item.category, "price": float(view.item.price)}
                for ending, data in (
                    ("jpg", view.jpeg()),
                    ("txt", view.item.title.encode()),
                    ("json", json.dumps(about).encode()),
                ):
                    member = tarfile.TarInfo(f"{view.number:06d}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return root


def _with_images(root: Path, products: int, views: int) -> list[View]:
    shown = views_of(products, views)
    for view in shown:
        write_jpeg(root / "images" / view.file, view.pixels())
    return shown


def _write_table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[str]], *, delimiter: str = ","
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
