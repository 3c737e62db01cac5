"""Encodes sightings, and stores them in a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from finegrain import times
from finegrain.cameras.camera import Camera
from finegrain.cameras.tracks import Sighting
from finegrain.encoder import Encoder
from finegrain.gallery import Gallery
from finegrain.gallery.entries import entry_from_mapping
from finegrain.gallery.pictures import thumbnail
from finegrain.gallery.row import Entry
from finegrain.preprocess import Crop
from finegrain.records import Scalar

MEAN, CROP = "mean", "crop"
"""Values of the column ``vector``: the mean vector of a track, or that of one crop."""

_BLUR = 0.06  # of the height of the crop: about half of a head


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A sighting and its camera."""

    camera: Camera
    sighting: Sighting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedSighting:
    """A sighting with the vectors of its crops, float32 ``[M, D]``."""

    seen: Seen
    vectors: NDArray[np.float32]


def encoded(encoder: Encoder, batch: Sequence[Seen]) -> list[EncodedSighting]:
    """Encode the crops of several sightings in one batch."""
    crops = [Image.fromarray(c.pixels) for seen in batch for c in seen.sighting.crops]
    if not crops:
        return []
    vectors = encoder.encode_images(crops)
    results, start = [], 0
    for seen in batch:
        stop = start + len(seen.sighting.crops)
        results.append(EncodedSighting(seen=seen, vectors=vectors[start:stop]))
        start = stop
    return results


def store(
    gallery: Gallery, batch: Sequence[EncodedSighting], *, expire_after: timedelta | None
) -> int:
    """Add the rows of sightings, all or none: the mean vector of each, and its crops.

    Sightings that are in the gallery already, from a run that was interrupted, are left out.

    Args:
        expire_after: How long to keep those of cameras without a time of their own.

    Returns:
        Number of crops that were stored.
    """
    new = [item for item in batch if len(item.vectors) and not _is_stored(gallery, item)]
    if not new:
        return 0
    vectors, entries = [], []
    for item in new:
        mean = item.vectors.mean(axis=0)
        vectors += [mean / np.linalg.norm(mean), *item.vectors]
        entries += _entries(item.seen, expire_after)
    gallery.add_entries(np.stack(vectors), entries)
    return sum(len(item.vectors) for item in new)


def _is_stored(gallery: Gallery, item: EncodedSighting) -> bool:
    if len(gallery) == 0:
        return False
    sighting = item.seen.sighting
    track = sighting.track.replace("\\", "\\\\").replace("'", "''")
    time = times.utc_text(sighting.crops[0].time)
    return bool(gallery.ids_where(f"track = '{track}' and time = '{time}'"))


def _entries(seen: Seen, expire_after: timedelta | None) -> list[Entry]:
    camera, sighting = seen.camera, seen.sighting
    retention = camera.expire_after or expire_after
    shared: dict[str, Scalar] = {
        "camera": camera.name,
        "track": sighting.track,
        "track_start": times.utc_text(sighting.start),
        "track_end": times.utc_text(sighting.end),
        **sighting.path.columns(camera.zones, camera.lines),
    }
    pictures = [_picture(crop.pixels, blur=camera.blur) for crop in sighting.crops]
    best = max(range(len(pictures)), key=lambda n: sighting.crops[n].quality)
    rows: list[tuple[str | None, dict[str, Scalar], bytes]] = [
        (None, {"vector": MEAN, "time": times.utc_text(sighting.crops[best].time)}, pictures[best])
    ]
    for crop, picture in zip(sighting.crops, pictures, strict=True):
        columns: dict[str, Scalar] = {
            "vector": CROP,
            "time": times.utc_text(crop.time),
            "clock": crop.clock,
            "box_score": round(crop.score, 4),
        }
        rows.append((_address(camera, crop.seconds, crop.box), columns, picture))
    return [
        entry_from_mapping(
            sighting.track,
            {**shared, **columns},
            image=image,
            thumbnail=picture,
            retention=retention,
        )
        for image, columns, picture in rows
    ]


def _address(camera: Camera, seconds: float, box: tuple[int, int, int, int]) -> str | None:
    """Where the crop is in its file; None for a stream, and where the file shows too much."""
    if camera.address.kind != "file" or camera.blur or camera.masks:
        return None
    return Crop(camera.address.text, box, seconds).address


def _picture(pixels: NDArray[np.uint8], *, blur: bool) -> bytes:
    image = Image.fromarray(pixels)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(max(2.0, _BLUR * image.height)))
    return thumbnail(image)
