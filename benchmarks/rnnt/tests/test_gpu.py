"""A GPU's kernel and its pipeline. Without a GPU Triton interprets the kernel, and streams are none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench_rnnt.config import RnntConfig
from bench_rnnt.dataset import Dataset
from bench_rnnt.model import Rnnt
from bench_rnnt.official import CHECKPOINT, MAX_SYMBOLS
from bench_rnnt.pytorch.backend import Backend, read_model
from bench_rnnt.pytorch.decoding import Greedy, Labels, decode
from bench_rnnt.pytorch.features import Featurizer
from loadgen.contracts import BackendOptions

pytest.importorskip("triton", reason="Triton is for Linux only")

from bench_rnnt.pytorch.gpu import Filled, Pipeline, fill
from bench_rnnt.pytorch.kernels import Decoder

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
HOPPER = Path(__file__).with_name("hopper.py")
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
MIXED = [(18, 1.0), (52, 0.6), (5, 1.5)]
"""Seeds, and what is added to the blank's bias, of models with which frames bring no label, some and many."""
CONFIGS = [RnntConfig(12, 1, 1, 10, 1, 16), RnntConfig(10, 1, 2, 70, 2, 12), RnntConfig(8, 2, 1, 6, 3, 20)]


def as_lists(labels: Labels) -> list[list[int]]:
    return [ids[:count].tolist() for ids, count in zip(labels.ids, labels.counts.tolist(), strict=True)]


def encoded(model: Rnnt, seed: int, count: int, longest: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=draw)
    x = torch.randn(int(lengths.max()), count, 240, generator=draw) * 0.3
    found: tuple[Tensor, Tensor] = model.encoder(x.to(DEVICE), lengths.to(DEVICE))
    return found


@torch.inference_mode()
@pytest.mark.parametrize(("seed", "blank"), MIXED + [(seed, 0.6) for seed in range(8, 14 if ON_GPU else 8)])
def test_the_kernel_decodes_as_the_rule_says(seed: int, blank: float, random_model: Callable[..., Rnnt]) -> None:
    """Utterances that fill one program and part of another; other counts of layers and other sizes."""
    model = random_model(seed, CONFIGS[seed % 3], blank=blank).float().to(DEVICE)
    x, lengths = encoded(model, seed, 21, 60 if ON_GPU else 6)
    decoder = Decoder(Greedy(model))
    expected = as_lists(decode(Greedy(model), x, lengths))
    assert as_lists(decoder(decoder.project(x), lengths)) == expected
    if ON_GPU:  # so many that a program takes more of them
        x, lengths = x.repeat(1, 30, 1), lengths.repeat(30)
        assert as_lists(decoder(decoder.project(x), lengths)) == expected * 30
    assert len({len(labels) for labels in expected}) > 2 or (seed, blank) not in MIXED


@torch.inference_mode()
def test_the_kernel_stops_at_30_labels_a_frame(random_model: Callable[..., Rnnt]) -> None:
    model = random_model(0, CONFIGS[0], blank=-1000).float().to(DEVICE)
    x, lengths = encoded(model, 0, 3, 3)
    decoder = Decoder(Greedy(model))
    labels = decoder(decoder.project(x), lengths)
    assert labels.counts.tolist() == (MAX_SYMBOLS * lengths).tolist()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16] if ON_GPU else [torch.float16])
def test_in_16_bits_the_kernel_decodes_as_pytorch_does(dtype: torch.dtype, mini: Path, mini_dataset: Dataset) -> None:
    """What the same model has encoded: rounding differs a little. Triton interprets no product in bfloat16."""
    batch = mini_dataset.gather(np.arange(0, 256, 1 if ON_GPU else 16))
    model = read_model(mini / "model" / CHECKPOINT).to(DEVICE, dtype)
    columns = (torch.from_numpy(column).to(DEVICE) for column in (batch.padded, batch.lengths))
    x, joined = Featurizer().to(DEVICE)(*columns)
    encoded, lengths = model.encoder(x.to(dtype), joined)
    decoder = Decoder(Greedy(model))
    pairs = zip(
        as_lists(decoder(decoder.project(encoded), lengths)),
        as_lists(decode(Greedy(model), encoded, lengths)),
        strict=True,
    )
    assert sum(found == expected for found, expected in pairs) >= 0.97 * len(lengths)


def test_no_product_is_under_way_while_its_registers_are_written() -> None:
    """As compiled for an H200, which needs none: a product that takes values from registers is waited for at once."""
    env = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, str(HOPPER)], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    waits = re.findall(r"warp_group_dot_wait .*pendings = (\d+)", done.stdout)
    assert waits, "the joint is no product of warp groups"
    assert set(waits) == {"0"}


class NoStream:
    """A stream, an event or a device of a machine without a GPU: all is done at once."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        assert name in ("wait_stream", "record", "synchronize")
        return lambda *_: None


def test_the_pipeline_answers_each_batch(mini: Path, mini_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """More batches than slots, the first of them the smallest: what was in a slot before does not show."""
    for name in ("Stream", "Event", "device", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, NoStream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    backend = Backend(BackendOptions(mini / "model"))
    backend.load()
    greedy = Greedy(backend.model)
    pipeline = Pipeline(backend.encode, lambda x, lengths: decode(greedy, x, lengths), torch.device("cpu"), 1)
    batches = [mini_dataset.gather(np.array(indices)) for indices in ([9], [3, 77], [5, 6, 250, 8], [200], [9, 1])]
    with torch.inference_mode():
        found = [future.result() for future in [pipeline.submit(batch) for batch in batches]]
    pipeline.close()
    expected = [backend.submit(batch).result() for batch in batches]
    assert [[row.tolist() for row in rows] for rows in found] == [[row.tolist() for row in rows] for rows in expected]


@torch.inference_mode()
def test_units_without_weights_change_nothing() -> None:
    torch.manual_seed(0)
    lstm, x = torch.nn.LSTM(10, 12, 2), torch.randn(9, 3, 10)
    filled = Filled(lstm)
    found, (hidden, _) = filled(x)
    assert hidden.shape == (2, 3, 64)
    assert (found - lstm(x)[0]).abs().max() < 1e-6


@needs_gpu
@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.1)])
def test_in_16_bits_a_gpu_encodes_as_in_32(dtype: torch.dtype, tolerance: float, mini: Path) -> None:
    """112 units, which cuDNN 9.19 computed wrongly in float16."""
    torch.manual_seed(0)
    x, lengths = torch.randn(60, 64, 240, device=DEVICE), torch.full((64,), 60, device=DEVICE)
    expected, _ = read_model(mini / "model" / CHECKPOINT).encoder(x.cpu(), lengths.cpu())
    encoder = read_model(mini / "model" / CHECKPOINT).to(DEVICE, dtype).encoder
    fill(encoder)
    found, _ = encoder(x.to(dtype), lengths)
    assert (found.float().cpu() - expected).abs().max() < tolerance


@needs_gpu
@pytest.mark.parametrize(("dtype", "same"), [("float32", 256), ("float16", 250), ("bfloat16", 240)])
def test_a_gpu_hears_what_a_cpu_hears(dtype: str, same: int, mini: Path, mini_dataset: Dataset) -> None:
    """Batches of many sizes, several under way."""
    heard = {}
    for device in ("cpu", "cuda"):
        backend = Backend(
            BackendOptions(mini / "model", (device,), dtype if device == "cuda" else "float32", max_batch=64)
        )
        backend.load()
        batches = np.split(np.arange(256), [64, 65, 105, 128, 160, 200, 248])
        futures = [backend.submit(mini_dataset.gather(batch)) for batch in batches]
        heard[device] = {
            index: labels.tolist()
            for batch, future in zip(batches, futures, strict=True)
            for index, labels in zip(batch.tolist(), future.result(), strict=True)
        }
        backend.close()
    assert sum(heard["cpu"][index] == heard["cuda"][index] for index in range(256)) >= same
