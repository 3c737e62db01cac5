"""Compares the slots of a file of vectors with the database, and recovers damaged ids.

The database states the CRC-32 of each vector. A slot whose id or checksum is damaged is therefore
recognised by its vector, or by its checksum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from finegrain.gallery.sqlite.vector_file import Checksums, Corrections
from finegrain.index.estimate import Ids, Rows

_MOST_READ = 16_384
"""Most vectors that are read to recognise them, so that a file of another gallery is refused soon.
A damaged page of the file holds the ids or checksums of fewer slots."""


class Comparison(NamedTuple):
    """Differences between a file and its database.

    Attributes:
        missing: Ids of pictures that no slot holds.
        recovered: Ids of pictures whose slot has a damaged id or checksum.
        corrections: Correct ids and checksums of these slots. Slots that hold no picture are marked
            as deleted, under ids that keep all ids in order.
        strays: Slots that hold no picture and are to be overwritten.
    """

    missing: list[int]
    recovered: list[int]
    corrections: Corrections
    strays: Rows


class Slots(NamedTuple):
    """The slots in use.

    Attributes:
        ids: Ids as the file holds them.
        checksums: Checksums as the file holds them.
    """

    ids: Ids
    checksums: Checksums


def compare(
    slots: Slots,
    pictures: Mapping[int, int],
    erasing: Mapping[int, int],
    checksums_of: Callable[[Rows], Checksums],
) -> Comparison:
    """Compare slots with the database.

    Args:
        slots: The slots in use.
        pictures: Checksums of the vectors of stored pictures by id, ascending.
        erasing: The same of deleted pictures whose vectors are being erased.
        checksums_of: Computes the checksums of the vectors of slots.
    """
    expected = {**erasing, **pictures}
    settled = _in_order(_plausible(slots, pictures, erasing, expected))
    open_slots = _others(settled, len(slots.ids))
    lost = sorted(expected.keys() - set(settled.values()))
    recognised = _recognised(slots, open_slots, lost, expected, checksums_of)
    in_order = _in_order(settled | recognised)
    changed = _others(settled.keys() & in_order.keys(), len(slots.ids)).tolist()
    ids = slots.ids.copy()
    checksums = slots.checksums.copy()
    for slot in changed:  # ascending, so that the id before is correct
        if slot in in_order:
            ids[slot], checksums[slot] = recognised[slot], expected[recognised[slot]]
        else:
            ids[slot] = -(abs(int(ids[slot - 1])) if slot else 0) - 1
    stated = np.abs(slots.ids)
    return Comparison(
        missing=sorted(pictures.keys() - set(ids[ids > 0].tolist())),
        recovered=[recognised[slot] for slot in changed if slot in in_order],
        corrections=Corrections(
            np.array(changed, np.int64), slots.ids[changed], ids[changed], checksums[changed]
        ),
        strays=np.array(
            [s for s in changed if s not in in_order and int(stated[s]) not in pictures], np.int64
        ),
    )


def _others(slots: Collection[int], count: int) -> Rows:
    """The slots among the first ``count`` that are not given, ascending."""
    are_others = np.ones(count, np.bool_)
    are_others[list(slots)] = False
    return np.flatnonzero(are_others)


def _plausible(
    slots: Slots,
    pictures: Mapping[int, int],
    erasing: Mapping[int, int],
    expected: Mapping[int, int],
) -> dict[int, int]:
    """Ids by slot that agree with the database; also of slots that are marked as deleted."""
    plausible = {}
    stated = zip(slots.ids.tolist(), slots.checksums.tolist(), strict=True)
    for slot, (id_, checksum) in enumerate(stated):
        if expected.get(id_) == checksum:
            plausible[slot] = id_
        elif id_ < 0 and -id_ not in pictures and (checksum == 0 or -id_ in erasing):
            plausible[slot] = -id_
    return plausible


def _in_order(ids: Mapping[int, int]) -> dict[int, int]:
    """The largest selection of slots whose ids ascend: the longest increasing subsequence."""
    by_slot = sorted(ids.items())
    if all(id_ < next_id for (_, id_), (_, next_id) in pairwise(by_slot)):
        return dict(by_slot)
    ends: list[int] = []  # for each length, the lowest id that ends such a sequence
    end_slots: list[int] = []
    before: dict[int, int | None] = {}
    for slot, id_ in by_slot:
        length = bisect_left(ends, id_)
        ends[length : length + 1] = [id_]
        end_slots[length : length + 1] = [slot]
        before[slot] = end_slots[length - 1] if length else None
    in_order: dict[int, int] = {}
    last = end_slots[-1] if end_slots else None
    while last is not None:
        in_order[last] = ids[last]
        last = before[last]
    return in_order


def _recognised(
    slots: Slots,
    open_slots: Rows,
    missing: list[int],
    expected: Mapping[int, int],
    checksums_of: Callable[[Rows], Checksums],
) -> dict[int, int]:
    """Ids of missing pictures by the slot that holds their vector, or states their checksum."""
    by_checksum: dict[int, list[int]] = {}
    for id_ in reversed(missing):
        by_checksum.setdefault(expected[id_], []).append(id_)
    recognised: dict[int, int] = {}
    if not by_checksum:
        return recognised

    def assign(rows: Rows, checksums: Checksums) -> None:
        for slot, checksum in zip(rows.tolist(), checksums.tolist(), strict=True):
            if slot not in recognised and by_checksum.get(checksum):
                recognised[slot] = by_checksum[checksum].pop()

    if len(open_slots) <= _MOST_READ:
        assign(open_slots, checksums_of(open_slots))
    assign(open_slots, slots.checksums[open_slots])
    return recognised
