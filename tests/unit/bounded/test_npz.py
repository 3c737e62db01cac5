from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from finegrain.bounded.npz import read_npz, write_npz

EXPECTED = {"rows": (np.float16, 2), "settings": (np.uint8, 1)}


def arrays():
    return {
        "rows": np.arange(6, dtype=np.float16).reshape(3, 2),
        "settings": np.frombuffer(b"{}", np.uint8),
    }


def npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def with_header(header: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("settings.npy", b"")
        text = header.ljust(117) + b"\n"
        magic = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little")
        archive.writestr("rows.npy", magic + text + bytes(12))
    return file.getvalue()


def test_arrays_are_read_as_they_were_written():
    got = read_npz(write_npz(arrays()), EXPECTED)
    for name, array in arrays().items():
        np.testing.assert_array_equal(got[name], array)


def test_equal_arrays_give_equal_bytes():
    assert write_npz(arrays()) == write_npz(arrays())


def test_files_of_numpy_are_read():
    assert read_npz(npz(**arrays()), EXPECTED)["rows"].shape == (3, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a zip file", "damaged"),
        (write_npz(arrays())[:-40], "damaged"),
        (npz(np.savez_compressed, **arrays()), "not compressed"),
        (npz(rows=arrays()["rows"]), "expected the arrays"),
        (npz(**arrays(), more=np.ones(1)), "expected the arrays"),
        (npz(**arrays() | {"rows": np.ones((3, 2))}), "expected rows as <f2"),
        (npz(**arrays() | {"rows": np.ones(3, np.float16)}), "2 dimensions"),
        (npz(**arrays() | {"rows": np.array([[{}]])}), "in C order"),
        (
            with_header(
                b"{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000, 1000000000), }"
            ),
            "does not agree with its size",
        ),
        (
            with_header(b"{'descr': '<f2', 'fortran_order': False, 'shape': (3,"),
            "version 1.0 of the npy format",
        ),
        (with_header(b"{'descr': '<f2', 'fortran_order': True, 'shape': (3, 2), }"), "in C order"),
    ],
)
def test_other_content_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read_npz(data, EXPECTED)
