"""Weight files with too many tensors."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from finegrain.errors import WeightsError
from finegrain.zoo import files


def test_a_safetensors_file_with_too_many_tensors_is_refused(tmp_path: Path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert files.read_state_dict(path).keys() == {"a"}
    header += b" " * files.MAX_HEADER_BYTES
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match="expected a header of at most"):
        files.read_state_dict(path)


def test_a_torch_file_with_too_many_members_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "MAX_DIRECTORY_BYTES", 128 << 10)
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(700):
            archive.writestr(f"{number:0200d}", b"")
    with pytest.raises(WeightsError, match="its directory of members has 1"):
        files.read_state_dict(path)
