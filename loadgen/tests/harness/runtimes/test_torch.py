"""The room of PyTorch. Runs where PyTorch is: in a benchmark's test session."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.runtimes import torch as room

torch = pytest.importorskip("torch")


def options(*devices: str, **rest: Any) -> BackendOptions:
    return BackendOptions(Path("model"), devices=devices or ("cpu",), **rest)


def test_a_cpu_is_found_and_told() -> None:
    device = room.find_device(options(dtype="bfloat16"))
    told = room.loaded(device, "bfloat16")
    assert (told.device, told.dtype, dict(told.versions)) == ("cpu", "bfloat16", {"torch": torch.__version__})
    room.release(device)


def test_every_dtype_is_one_of_pytorch() -> None:
    assert [room.dtype_of(name) for name in ("float32", "bfloat16")] == [torch.float32, torch.bfloat16]
    assert all(isinstance(room.dtype_of(name), torch.dtype) for name in room.DTYPES)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (options("tpu"), "device 'tpu': use cpu, cuda or cuda:N"),
        (options("cuda:x"), "device 'cuda:x': use cpu, cuda or cuda:N"),
        (options("cuda"), "device 'cuda': PyTorch .* sees no GPU. .*use device cpu"),
        (options("cpu", "cpu"), "devices cpu, cpu: this backend computes on one device"),
        (options(dtype="int4"), "dtype 'int4': use one of float32, bfloat16, float16"),
    ],
)
def test_what_is_not_there_is_an_error(asked: BackendOptions, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        room.find_device(asked)


def test_a_gpu_beyond_the_last_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert room.find_device(options("cuda:1")) == torch.device("cuda:1")
    with pytest.raises(InputError, match="device 'cuda:2': use one of cpu, cuda, cuda:0, cuda:1"):
        room.find_device(options("cuda:2"))


def test_a_dtype_that_only_others_have_is_an_error() -> None:
    with pytest.raises(InputError, match=r"dtype 'bfloat16': use one of float32$"):
        room.find_device(options(dtype="bfloat16"), ("float32",))


@pytest.mark.parametrize(("threads", "extra", "expected"), [(3, {"threads": 2}, 3), (0, {"threads": 2}, 2), (0, {}, 1)])
def test_threads(threads: int, extra: dict[str, int], expected: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        room.set_threads(options(threads=threads, extra=extra))
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_a_state_dict_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "w.pt")
    assert room.read_state_dict(tmp_path / "w.pt")["a"].tolist() == [0, 1, 2]


def test_a_state_dict_is_read_from_a_trainings_checkpoint(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.arange(3.0)}, "epoch": 7}, tmp_path / "w.pt")
    assert room.read_state_dict(tmp_path / "w.pt", "state_dict")["a"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"w\.pt: no 'model' in it\. Fetch it again"):
        room.read_state_dict(tmp_path / "w.pt", "model")
    with pytest.raises(InputError, match="holds a int, not a dict of tensors"):
        room.read_state_dict(tmp_path / "w.pt", "epoch")


def _whole() -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1000)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file. Put the official w.pt there"),
        (b"", "not a PyTorch state dict .EOFError.. Fetch it again"),
        (b"\x00\x01garbage" * 100, "not a PyTorch state dict .it is not made of tensors.. Fetch it again"),
        (b"words of a text\n" * 30, "not a PyTorch state dict"),
        (_whole()[:2000], "not a PyTorch state dict .PytorchStreamReader failed"),
        (pickle.dumps([1]), "not a PyTorch state dict"),
    ],
)
def test_a_damaged_file_is_explained(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        room.read_state_dict(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"a": Path("x")}, r"it holds a pathlib\.\w+"),
        (torch.nn.Linear(2, 2), r"it holds a torch\.nn\.modules\.linear\.Linear"),
        ([torch.zeros(1)], "holds a list, not a dict of tensors"),
        ({"a": 1}, "holds a dict, not a dict of tensors"),
    ],
)
def test_what_is_no_tensor_is_refused_without_advice_to_run_it(saved: Any, message: str, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(InputError, match=message) as caught:
        room.read_state_dict(tmp_path / "w.pt")
    assert "weights_only" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
