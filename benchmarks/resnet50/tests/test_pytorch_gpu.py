"""How batches go to a GPU and answers come back, without a GPU: events that a test lets happen stand for its work."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from concurrent.futures import wait
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from bench_resnet50.backend_pytorch_gpu import Launched, PageLocked, Pipeline, constants, sizes
from bench_resnet50.dataset import Batch
from bench_resnet50.preprocess import NORMALISATIONS


class Event:
    """In place of `torch.cuda.Event`."""

    happened = threading.Event()
    error: Exception | None = None

    def __init__(self, blocking: bool = False) -> None: ...

    def record(self) -> None: ...

    def query(self) -> bool:
        if self.error:
            raise self.error
        return self.happened.is_set()

    def synchronize(self) -> None:
        assert self.happened.wait(10)
        if self.error:
            raise self.error


@pytest.fixture
def event(monkeypatch: pytest.MonkeyPatch) -> Any:
    kind = type("OneEvent", (Event,), {"happened": threading.Event(), "error": None})
    monkeypatch.setattr(torch.cuda, "Event", kind)
    return kind


def test_who_waits_for_the_future_is_told(event: Any) -> None:
    launched = Launched(torch.arange(6.0).reshape(2, 3))
    told: list[Any] = []
    launched.add_done_callback(told.append)
    thread = threading.Thread(target=launched.finish)
    thread.start()
    assert not launched.done()
    assert wait([launched], timeout=0.01).not_done
    event.happened.set()
    assert wait([launched], timeout=10).done
    thread.join()
    assert told == [launched]
    assert np.array_equal(launched.result(), [[0, 1, 2], [3, 4, 5]])


def test_result_waits_itself(event: Any) -> None:
    launched = Launched(torch.ones(1, 2))
    threading.Timer(0.02, event.happened.set).start()
    assert np.array_equal(launched.result(), [[1, 1]])


def test_a_failed_kernel_fails_its_batch(event: Any) -> None:
    event.error, launched = RuntimeError("CUDA error"), Launched(torch.ones(1, 2))
    event.happened.set()
    for finish in (lambda: None, launched.finish):
        finish()
        with pytest.raises(RuntimeError, match="CUDA error"):
            launched.result()


class Runtime:
    """In place of CUDA's: remembers which memory is locked."""

    def __init__(self) -> None:
        self.locked: dict[int, int] = {}

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        self.locked[address] = size
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        del self.locked[address]
        return 0


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    runtime = Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "check_error", lambda error: None)
    monkeypatch.setattr(Tensor, "is_pinned", lambda tensor: False)
    return runtime


def test_memory_is_locked_once_and_until_it_is_freed(runtime: Runtime) -> None:
    locked, first, second = PageLocked(), np.zeros((5, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)
    assert [locked.address(first), locked.address(first)] == [first.ctypes.data] * 2
    locked.address(second)
    assert runtime.locked == {first.ctypes.data: first.nbytes, second.ctypes.data: second.nbytes}
    del first
    gc.collect()
    assert list(runtime.locked) == [second.ctypes.data]
    locked.close()
    assert not runtime.locked


def fetch(named: Tensor, out: Tensor) -> None:
    """As the kernel does: from a bare address."""
    address, count, *rows = named.tolist()
    for image, row in zip(out[:count], rows[:count], strict=True):
        bytes_ = (ctypes.c_uint8 * image.numel()).from_address(address + row * image.numel())
        image.copy_(torch.from_numpy(np.frombuffer(bytes_, np.uint8).reshape(image.shape)))


class Network:
    """Of an image its two first pixels, normalised: six logits."""

    def buffer(self, count: int) -> Tensor:
        return torch.zeros(count, 4, 4, 3)

    def fill(self, buffer: Tensor, images: Tensor, mean: Tensor, scale: Tensor) -> None:
        buffer[: len(images)] = (images - mean) * scale

    def __call__(self, buffer: Tensor) -> Tensor:
        return buffer.flatten(1)[:, :6]


def recorded(pipeline: Pipeline, work: Callable[[], Any], stream: Any, pool: Any) -> tuple[Any, Any]:
    """In place of `Pipeline._graph`: to the same places in memory at each replay."""
    result = work()

    def replay() -> None:
        again = work()
        if result is not None:
            result.copy_(again)

    return SimpleNamespace(replay=replay), result


@pytest.fixture
def pipeline(event: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Any:
    """For up to 20 images, on a GPU that computes all at once."""
    event.happened.set()
    kernels: Any = ModuleType("bench_resnet50.backend_pytorch_kernels")
    kernels.fetch = fetch
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    monkeypatch.setattr("bench_resnet50.backend_pytorch_kernels", kernels, raising=False)
    monkeypatch.setattr(Pipeline, "_graph", recorded)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(wait_event=lambda event: None))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)  # set by the pipeline
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *what, make=make, pin_memory=False, **how: make(*what, **how))
    made = Pipeline(Network(), 4, 20, torch.device("cpu"))
    yield made
    made.close()
    assert not runtime.locked


def logits(images: npt.NDArray[np.uint8], variant: str) -> npt.NDArray[np.float32]:
    mean, scale = (constant.numpy() for constant in constants(variant, torch.device("cpu")))
    values: npt.NDArray[np.float32] = ((images - mean) * scale).reshape(len(images), -1)[:, :6]
    return values


def test_each_batch_gets_the_logits_of_its_own_images(pipeline: Any, runtime: Runtime) -> None:
    rng = np.random.default_rng(1)
    source, other = (rng.integers(0, 256, (30, 4, 4, 3), np.uint8) for _ in range(2))
    batches = [Batch(source, "tf", rng.integers(0, 30, count)) for count in (3, 20, 1, 7, 2)]
    batches += [Batch(other, "torch", np.array([29, 0, 29])), Batch(source[:5].copy(), "torch")]  # from another process
    batches += [Batch(source, "tf", np.arange(19))]
    launched = [pipeline.submit(batch) for batch in batches]
    for batch, answer in zip(batches, launched, strict=True):
        assert np.allclose(answer.result(), logits(batch.images, batch.variant), atol=1e-5)
    assert runtime.locked == {source.ctypes.data: source.nbytes, other.ctypes.data: other.nbytes}


def test_a_batch_beyond_the_largest_recording_is_refused(pipeline: Any) -> None:
    with pytest.raises(ValueError, match="21 images is larger than the largest of 20"):
        pipeline.submit(Batch(np.zeros((21, 4, 4, 3), np.uint8)))


@pytest.mark.parametrize("variant", NORMALISATIONS)
def test_constants_are_those_of_pixels(variant: str) -> None:
    mean, scale = constants(variant, torch.device("cpu"))
    pixels = np.arange(256, dtype=np.float32)[:, None]
    factor, shift = NORMALISATIONS[variant].folded()
    assert np.allclose((pixels - mean.numpy()) * scale.numpy(), pixels * factor + shift, atol=2e-5)


def test_a_batch_is_rounded_up_by_a_sixteenth_of_the_largest_at_most() -> None:
    assert sizes(256)[:3] == [256, 240, 224]
    assert sizes(256)[-6:] == [32, 16, 8, 4, 2, 1]
    for largest in (1, 2, 8, 100, 256, 1000):
        recorded = sizes(largest)
        assert recorded == sorted(set(recorded), reverse=True)
        assert (recorded[0], recorded[-1]) == (largest, 1)
        assert len(recorded) <= 16 + largest.bit_length()
        for count in range(1, largest + 1):
            size = min(size for size in recorded if size >= count)
            assert size < 2 * count
            assert size - count <= largest / 16
