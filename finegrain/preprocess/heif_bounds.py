"""Detects HEIF and AVIF pictures whose parts take too much work to read or to decode.

Both formats consist of nested boxes that describe items: pictures, tiles, EXIF. Items refer to each
other, so a file of 2 kB can request a large tile a thousand times, and one of 10 MB a thousand
copies of its EXIF. The libraries that read them bound only some of these numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

from finegrain.preprocess.av1_frames import num_decoded_pixels
from finegrain.preprocess.large import MAX_DECODED
from finegrain.preprocess.work_bounds import too_much_work

MAX_ITEMS = 4096
"""Maximum number of items; a picture of 64 megapixels has 250 tiles of 512 x 512. libavif takes
quadratic time for more."""

MAX_REFERENCES = 1 << 16
"""Maximum number of references to items, of associated properties, and of extents."""

MAX_DESCRIPTION = 128 << 20
"""Maximum size of profiles, EXIF and further descriptions, once for each item that has them."""

MAX_COMPUTED = 3 * MAX_DECODED
"""Maximum number of pixels that are computed for one item. A picture of tiles is computed twice,
and the tiles may exceed it on two sides."""

MAX_DEPTH = 8
"""Maximum depth of items that are derived from items; the standards allow three."""

_CODED_AV1 = b"av01"


@dataclass(slots=True)
class _Item:
    """An item of a container.

    Attributes:
        kind: Four letters, such as ``grid``.
        area: Stated width times height.
        data: The ranges of the file that hold its content.
        parts: Numbers of the items that it is made of.
    """

    kind: bytes = b""
    area: int = 0
    data: list[memoryview] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(len, self.data))


def check_container(stream: IO[bytes], name: str) -> None:
    """Check that the items of a HEIF or AVIF file take little work; leaves the stream at its start.

    Raises:
        ImageError: There are too many items or references, or they describe or compute too much.
    """
    stream.seek(0)
    is_container = stream.read(8)[4:] == b"ftyp"
    stream.seek(0)
    if not is_container:
        return
    file = memoryview(stream.read())
    stream.seek(0)
    for kind, content in _boxes(file, name):
        if kind == b"meta":
            _check_items(_Meta(file, content[4:], name), name)
        elif kind == b"moov":
            _check_samples(file, content, name)


def _boxes(content: memoryview, name: str) -> Iterator[tuple[bytes, memoryview]]:
    """Kinds and contents of the boxes in a range of a file, up to the first damaged one."""
    at = 0
    for _ in range(MAX_REFERENCES):
        size, kind, start = _number(content, at, 4), bytes(content[at + 4 : at + 8]), at + 8
        if size == 1:
            size, start = _number(content, start, 8), start + 8
        stop = at + size if size else len(content)
        if start > len(content) or stop < start:
            return
        yield kind, content[start:stop]
        at = stop
    raise too_much_work(name, f"a container of more than {MAX_REFERENCES:,} boxes")


def _contents(content: memoryview, kind: bytes, name: str) -> list[memoryview]:
    """Contents of the boxes of a kind."""
    return [inner for inner_kind, inner in _boxes(content, name) if inner_kind == kind]


def _number(content: memoryview, at: int, size: int) -> int:
    return int.from_bytes(content[at : at + size])


class _Meta:
    """The tables of a container.

    Args:
        file: The complete file.
        content: Content of the box ``meta``.
        name: Name of the picture in messages.

    Attributes:
        items: Item by number.
        description: Sum of the sizes of descriptions, once for each item that has them.
    """

    def __init__(self, file: memoryview, content: memoryview, name: str) -> None:
        self.items: defaultdict[int, _Item] = defaultdict(_Item)
        self.description = 0
        self._name = name
        self._num_references = 0
        self._sources = {0: file}
        for inside in _contents(content, b"idat", name):
            self._sources[1] = inside
        for kind, read in (
            (b"iinf", self._read_kinds),
            (b"iloc", self._read_places),
            (b"iref", self._read_references),  # needs the sizes that the places state
            (b"iprp", self._read_properties),
        ):
            for table in _contents(content, kind, name):
                read(table)

    def _item(self, number: int) -> _Item:
        item = self.items[number]
        if len(self.items) > MAX_ITEMS:
            raise too_much_work(self._name, f"a container of more than {MAX_ITEMS:,} items")
        return item

    def _count(self, count: int) -> int:
        self._num_references += count
        if self._num_references > MAX_REFERENCES:
            raise too_much_work(self._name, f"more than {MAX_REFERENCES:,} references among items")
        return count

    def _read_kinds(self, table: memoryview) -> None:
        for _, entry in _boxes(table[6 if _number(table, 0, 1) == 0 else 8 :], self._name):
            width = 2 if _number(entry, 0, 1) < 3 else 4
            self._item(_number(entry, 4, width)).kind = bytes(entry[6 + width : 10 + width])

    def _read_places(self, table: memoryview) -> None:
        version, sizes = _number(table, 0, 1), _number(table, 4, 2)
        offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
        index_bytes = sizes & 15 if version else 0
        width = 2 if version < 2 else 4
        at = 6 + width
        for _ in range(self._count(_number(table, 6, width))):
            item = self._item(_number(table, at, width))
            at += width
            source = self._sources.get(_number(table, at, 2) & 15 if version else 0)
            at += 2 if version else 0
            base = _number(table, at + 2, base_bytes)
            at += 4 + base_bytes
            for _ in range(self._count(_number(table, at - 2, 2))):
                start = base + _number(table, at + index_bytes, offset_bytes)
                length = _number(table, at + index_bytes + offset_bytes, length_bytes)
                at += index_bytes + offset_bytes + length_bytes
                if source is not None:
                    item.data.append(source[start : start + length] if length else source[start:])
            if len(item.data) > 1:
                self.description += item.size  # ranges are copied to join them

    def _read_references(self, table: memoryview) -> None:
        width = 2 if _number(table, 0, 1) == 0 else 4
        for kind, content in _boxes(table[4:], self._name):
            item = self._item(_number(content, 0, width))
            count = self._count(_number(content, width, 2))
            if kind == b"dimg":
                first = width + 2
                places = range(first, first + width * count, width)
                item.parts += [_number(content, place, width) for place in places]
            elif kind == b"cdsc":
                self.description += count * item.size

    def _read_properties(self, tables: memoryview) -> None:
        properties = [
            box
            for inner in _contents(tables, b"ipco", self._name)
            for box in _boxes(inner, self._name)
        ]
        for table in _contents(tables, b"ipma", self._name):
            width = 2 if _number(table, 0, 1) == 0 else 4
            number_bytes, mask = (2, 0x7FFF) if _number(table, 3, 1) & 1 else (1, 0x7F)
            at = 8
            for _ in range(self._count(_number(table, 4, 4))):
                item = self._item(_number(table, at, width))
                at += width + 1
                for _ in range(self._count(_number(table, at - 1, 1))):
                    number = _number(table, at, number_bytes) & mask
                    at += number_bytes
                    if 0 < number <= len(properties):
                        self._add_property(item, *properties[number - 1])

    def _add_property(self, item: _Item, kind: bytes, content: memoryview) -> None:
        self.description += len(content)
        if kind == b"ispe":
            item.area = max(item.area, _number(content, 4, 4) * _number(content, 8, 4))


def _check_items(meta: _Meta, name: str) -> None:
    if meta.description > MAX_DESCRIPTION:
        raise too_much_work(
            name,
            f"profiles, EXIF and other descriptions of {meta.description >> 20:,} MiB, "
            "counted for each item",
        )
    areas: dict[int, int] = {}
    for number in list(meta.items):
        _require_few_pixels(_computed(number, meta.items, areas, name, MAX_DEPTH), name)


def _require_few_pixels(num_pixels: int, name: str) -> None:
    if num_pixels > MAX_COMPUTED:
        raise too_much_work(name, f"a picture for which {num_pixels:,} pixels are computed")


def _computed(
    number: int, items: Mapping[int, _Item], areas: dict[int, int], name: str, depth: int
) -> int:
    """Number of pixels that are computed for an item, with those of its parts."""
    if not depth:
        raise too_much_work(name, f"items that are derived from items more than {MAX_DEPTH} times")
    if number not in areas:
        item = items.get(number, _Item())
        area = item.area
        if item.kind == _CODED_AV1:
            area = max(area, _coded_pixels(item.data, name))
        parts = (_computed(part, items, areas, name, depth - 1) for part in item.parts)
        areas[number] = area + sum(parts)
    return areas[number]


def _coded_pixels(ranges: list[memoryview], name: str) -> int:
    """Number of pixels of the frames of a picture in AV1."""
    if len(ranges) > 1:
        ranges = [memoryview(b"".join(ranges))]
    pixels = num_decoded_pixels(ranges[0]) if ranges else 0
    if pixels is None:
        raise too_much_work(name, "a picture in AV1 of too many parts")
    return pixels


def _check_samples(file: memoryview, movie: memoryview, name: str) -> None:
    """Check the first frame of each track of an animation, the only one that is decoded."""
    tables = [movie]
    for kind in (b"trak", b"mdia", b"minf", b"stbl"):
        tables = [inner for content in tables for inner in _contents(content, kind, name)]
    for table in tables:
        boxes = dict(_boxes(table, name))
        sizes, places = (boxes.get(kind, memoryview(b"")) for kind in (b"stsz", b"stco"))
        size = _number(sizes, 4, 4) or _number(sizes, 12, 4)
        start = _number(places, 8, 4)
        if b"co64" in boxes:
            start = _number(boxes[b"co64"], 8, 8)
        _require_few_pixels(_coded_pixels([file[start : start + size]], name), name)
