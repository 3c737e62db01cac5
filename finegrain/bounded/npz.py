"""Reads arrays from an npz file without pickle, and without trusting the sizes that it states."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_SUFFIX = ".npy"
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..{'descr': '(?P<dtype>[<>|]\w{2,3})', 'fortran_order': False, "
    rb"'shape': \((?P<shape>(?:\d{1,12},? ?){0,4})\), } *\n",
    re.DOTALL,
)


def read_npz(data: bytes, expected: Mapping[str, tuple[DTypeLike, int]]) -> dict[str, NDArray[Any]]:
    """Read uncompressed arrays.

    Args:
        data: The content of the file.
        expected: The type of numbers and the number of dimensions of each array, by name.

    Raises:
        ValueError: The file is damaged, has other arrays, or an array has another type or another
            number of dimensions.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = sorted(member.filename for member in members)
            if names != sorted(name + _SUFFIX for name in expected):
                raise ValueError(f"expected the arrays {', '.join(expected)}, got {names!r:.200}")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("expected arrays that are not compressed")
            if sum(member.file_size for member in members) > len(data):
                raise ValueError("its arrays state more bytes than it has")
            return {
                name: _array(archive.read(name + _SUFFIX), name, dtype, ndim)
                for name, (dtype, ndim) in expected.items()
            }
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"it is damaged: {error}") from error


def write_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of an npz file; equal arrays give equal bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(name + _SUFFIX, (1980, 1, 1, 0, 0, 0)), member.getvalue()
            )
    return file.getvalue()


def _array(data: bytes, name: str, dtype: DTypeLike, ndim: int) -> NDArray[Any]:
    # NumPy evaluates the header as Python; here it must be exactly what NumPy writes
    header = _HEADER.match(data)
    if header is None:
        raise ValueError(f"expected {name} in version 1.0 of the npy format, in C order")
    stated = header["dtype"].decode()
    shape = tuple(int(size) for size in header["shape"].replace(b",", b" ").split())
    numbers = np.dtype(dtype)
    if stated != numbers.str or len(shape) != ndim:
        raise ValueError(f"expected {name} as {numbers.str} of {ndim} dimensions, got {stated} "
                         f"{shape}")  # fmt: skip
    if prod(shape) * numbers.itemsize != len(data) - header.end():
        raise ValueError(f"the shape {shape} of {name} does not agree with its size")
    return np.frombuffer(data, numbers, offset=header.end()).reshape(shape)
