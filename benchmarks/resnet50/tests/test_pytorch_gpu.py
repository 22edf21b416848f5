"""How a GPU's answers arrive, without a GPU: an event that the test lets happen stands for its work."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from typing import Any

import numpy as np
import pytest
import torch

from bench_resnet50.backend_pytorch_gpu import Launched, constants, sizes
from bench_resnet50.preprocess import NORMALISATIONS


class Event:
    """In place of `torch.cuda.Event`."""

    happened = threading.Event()
    error: Exception | None = None

    def record(self) -> None: ...

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
    launched.finish()
    with pytest.raises(RuntimeError, match="CUDA error"):
        launched.result()


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
