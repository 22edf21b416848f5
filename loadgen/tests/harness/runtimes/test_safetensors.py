"""Weights of a Hugging Face folder: shards, their index, and what may be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loadgen.contracts import InputError

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from loadgen.harness.runtimes import safetensors

INDEX = "model.safetensors.index.json"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors = {f"layer.{n}": rng.standard_normal((8, 6)).astype(np.float16) for n in range(5)}
    safetensors.write(tmp_path / INDEX, {**tensors, "norm": np.arange(6, dtype=np.float16)}, shards=3)
    return tmp_path / INDEX


def test_tensors_and_their_parts_are_read(index: Path) -> None:
    assert len(list(index.parent.glob("model-0000?-of-00003.safetensors"))) == 3
    with safetensors.opened(index) as found:
        assert found.shapes["layer.3"] == (8, 6)
        whole = found.read("layer.3")
        assert (found.read("layer.3", 0, 1, 2) == whole[4:]).all()
        assert (found.read("layer.3", 1, 2, 3) == whole[:, 4:]).all()
        assert found.read("norm").tolist() == list(range(6))


def refused(index: Path, message: str) -> None:
    with pytest.raises(InputError, match=message), safetensors.opened(index):
        pass


def test_a_missing_shard_is_named(index: Path) -> None:
    (index.parent / "model-00002-of-00003.safetensors").unlink()
    refused(index, "model-00002-of-00003.safetensors: no such file")


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{}", b"not weights at all" * 100])
def test_a_damaged_shard_is_named(content: bytes, index: Path) -> None:
    (index.parent / "model-00001-of-00003.safetensors").write_bytes(content)
    refused(index, "model-00001-of-00003.safetensors: not a safetensors file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["weight_map"].update({"layer.9": "model-00001-of-00003.safetensors"}), "no tensor 'layer.9'"),
        (lambda d: d["weight_map"].update({"norm": "../secret"}), "not a file beside it"),
        (lambda d: d.pop("weight_map"), "has no 'weight_map'"),
    ],
)
def test_a_wrong_index_is_named(change: object, message: str, index: Path) -> None:
    document = json.loads(index.read_text())
    change(document)  # type: ignore[operator]
    index.write_text(json.dumps(document))
    refused(index, message)
