"""PyTorch's files in every form in which they are offered; none of them runs anything."""

from __future__ import annotations

import argparse
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench_retinanet.assets import unpack_weights
from bench_retinanet.config import FILE, RetinaNetConfig, write_config
from bench_retinanet.model import RetinaNet
from bench_retinanet.official import ARCHIVE, PICKLED, PYTORCH
from bench_retinanet.pytorch.checkpoint import official_name, read_weights
from loadgen.contracts import InputError

Load = Callable[..., Any]


def same(found: dict[str, torch.Tensor], tensors: dict[str, Any]) -> bool:
    return set(found) == set(tensors) and all(np.array_equal(found[name].numpy(), tensors[name]) for name in tensors)


@pytest.fixture
def state(small_tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value.copy()) for name, value in small_tensors.items()}


def test_the_committed_format(small_files: Path, small_tensors: dict[str, Any]) -> None:
    assert same(read_weights(small_files / PYTORCH), small_tensors)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_trainings_checkpoint(zipped: bool, tmp_path: Path, state: Any, small_tensors: Any) -> None:
    """As the reference's training saves it: beside the model an optimizer, and the words of its command line."""
    extra = {"optimizer": {"lr": 0.1}, "args": argparse.Namespace(device="cuda", lr=0.1), "epoch": 9}
    torch.save({"model": state, **extra}, tmp_path / PYTORCH, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path / PYTORCH), small_tensors)


def test_a_plain_state_dict_with_counters(tmp_path: Path, state: Any, small_tensors: Any) -> None:
    counted = {**state, "backbone.body.bn1.num_batches_tracked": torch.tensor(5)}
    torch.save(counted, tmp_path / PYTORCH)
    assert same(read_weights(tmp_path / PYTORCH), small_tensors)


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[..., type]:
    """Makes a class in a module of the training's repository, for as long as a file is written."""

    def make(dotted: str, *bases: type, **members: Any) -> type:
        module, _, name = dotted.rpartition(".")
        for place in (module.rpartition(".")[0], module):
            monkeypatch.setitem(sys.modules, place, sys.modules.get(place) or ModuleType(place))
        made = type(name, bases, {"__module__": module, **members})
        setattr(sys.modules[module], name, made)
        return made

    return make


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickled_module_of_unknown_classes(
    zipped: bool,
    tmp_path: Path,
    foreign: Any,
    state: Any,
    small_tensors: Any,
    small_config: RetinaNetConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = RetinaNet(small_config)
    model.load_state_dict(state, strict=False)
    for module, name in ((model, "RetinaNet"), (model.backbone, "BackboneWithFPN"), (model.head, "RetinaNetHead")):
        module.__class__ = foreign(f"retinamodel.retinanet.{name}", type(module))
    coder = foreign("retinamodel.coding.BoxCoder", object)()
    coder.weights = (1.0, 1.0, 1.0, 1.0)
    model.box_coder = coder
    model.transform = foreign("retinamodel.transform.GeneralizedRCNNTransform", nn.Module)()
    model.register_buffer("passing", torch.ones(3), persistent=False)
    torch.save(model, tmp_path / PICKLED, _use_new_zipfile_serialization=zipped)
    for name in [name for name in sys.modules if name.startswith("retinamodel")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError):
        torch.load(tmp_path / PICKLED, weights_only=False)
    assert same(read_weights(tmp_path / PICKLED), small_tensors)


def test_the_backend_takes_the_pickled_module_where_there_is_no_other(
    tmp_path: Path, small_files: Path, small_batch: Any, load: Load, state: Any, small_config: RetinaNetConfig
) -> None:
    model = RetinaNet(small_config)
    model.load_state_dict(state, strict=False)
    torch.save(model, tmp_path / PICKLED)
    write_config(tmp_path / FILE, small_config)
    ours, theirs = (load("pytorch", place).submit(small_batch).result() for place in (tmp_path, small_files))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


class Harmful:
    """Its unpickling would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "ran")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_nothing_in_a_file_is_run(zipped: bool, tmp_path: Path, state: Any, small_tensors: Any) -> None:
    target = tmp_path / "ran"
    content = {"model": state, "args": Harmful(target)}
    torch.save(content, tmp_path / PYTORCH, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path / PYTORCH), small_tensors)
    assert not target.exists()
    torch.load(tmp_path / PYTORCH, weights_only=False)
    assert target.exists(), "it would have run"


def torchvision_name(name: str) -> str:
    name = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.", r"\1.0.", name)
    return re.sub(r"^(head\.\w+\.conv)\.(\d)\.", lambda found: f"{found[1]}.{int(found[2]) // 2}.0.", name)


def test_torchvisions_names_are_known(tmp_path: Path, state: Any, small_tensors: Any) -> None:
    renamed = {torchvision_name(name): value for name, value in state.items()}
    assert "backbone.fpn.inner_blocks.0.0.weight" in renamed
    assert "head.classification_head.conv.0.0.bias" in renamed
    torch.save(renamed, tmp_path / PYTORCH)
    assert same(read_weights(tmp_path / PYTORCH), small_tensors)


def test_official_names_stay() -> None:
    for name in (
        "backbone.fpn.layer_blocks.0.weight",
        "head.regression_head.conv.6.bias",
        "backbone.body.conv1.weight",
    ):
        assert official_name(name) == name


@pytest.mark.parametrize(
    "content", [{"model": {}}, {"model": {"a": 1}}, [1, 2], {}, 5, {"model": [torch.ones(1)]}], ids=str
)
def test_a_file_without_weights_is_named(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / PYTORCH)
    with pytest.raises(InputError, match=f"{PYTORCH}: holds no weights of PyTorch .*: fetch the official file again"):
        read_weights(tmp_path / PYTORCH)


@pytest.mark.parametrize("content", [b"", b"nothing " * 20, pickle.dumps({"a": 1})])
def test_a_file_of_another_kind_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / PYTORCH).write_bytes(content)
    with pytest.raises(InputError, match=f"{PYTORCH}: holds no weights of PyTorch"):
        read_weights(tmp_path / PYTORCH)


def test_the_official_archive_is_unpacked(tmp_path: Path, small_files: Path, small_tensors: Any) -> None:
    with zipfile.ZipFile(tmp_path / ARCHIVE, "w") as archive:
        archive.write(small_files / PYTORCH, PYTORCH)
    unpack_weights(tmp_path)
    assert same(read_weights(tmp_path / PYTORCH), small_tensors)
    whole = (tmp_path / ARCHIVE).read_bytes()
    (tmp_path / PYTORCH).unlink()
    (tmp_path / ARCHIVE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"{ARCHIVE} is damaged .*: fetch it again"):
        unpack_weights(tmp_path)
    assert not (tmp_path / PYTORCH).exists()
