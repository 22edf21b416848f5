"""A GPU's lookup and its pipeline. Without a GPU Triton interprets the kernel, and streams are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_dlrm_v2.batch import Batch, Files
from bench_dlrm_v2.config import PREFIX, weight_shapes
from bench_dlrm_v2.dataset import Dataset
from bench_dlrm_v2.model import Dense
from bench_dlrm_v2.official import SNAPSHOT
from bench_dlrm_v2.pytorch.backend import Backend
from bench_dlrm_v2.pytorch.source import Source
from bench_dlrm_v2.pytorch.tables import Resident
from bench_dlrm_v2.standins.formats import write_snapshot
from loadgen.contracts import BackendOptions

pytest.importorskip("triton", reason="Triton is for Linux only")

from bench_dlrm_v2.pytorch.dense import Fused
from bench_dlrm_v2.pytorch.gpu import Pipeline
from bench_dlrm_v2.pytorch.kernels import Lookup

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
TABLES = [3, 0, 25, 11]


@pytest.fixture(scope="module")
def source(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("model")
    config = made.CONFIGS["small"]
    write_snapshot(folder / SNAPSHOT, config, made.drawn(weight_shapes(config), 3), made.LAYOUT)
    return Source(BackendOptions(folder))


def side_by_side(indices: list[Any], pairs: int) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(indices, axis=1)[:pairs]).to(DEVICE)


@pytest.mark.parametrize("pairs", [1, 16, 37])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.int8])
def test_the_kernel_sums_the_rows(pairs: int, stored: torch.dtype, source: Source, made: Any) -> None:
    """Some tables of a model, in an order of their own, into some columns of wider rows."""
    resident = Resident(source, TABLES, stored, DEVICE)
    _, indices = made.pairs(source.config)
    chosen = [torch.from_numpy(indices[number][:pairs]).to(DEVICE) for number in TABLES]
    assert len({ids.shape[1] for ids in chosen}) > 2, "tables differ in how many indices a pair has"
    columns = [number * 8 for number in TABLES]
    bags = torch.full((pairs, 26 * 8), 7.0, device=DEVICE)
    Lookup(resident, made.HOTS, columns)(side_by_side(indices, pairs), bags)
    expected = resident.bags(chosen)
    for at, column in enumerate(columns):
        assert (bags[:, column : column + 8] - expected[:, at * 8 : at * 8 + 8]).abs().max() < 1e-5
    others = [column for column in range(26 * 8) if column // 8 not in TABLES]
    assert (bags[:, others] == 7).all(), "other tables' columns stay"


def test_sums_are_rounded_once(source: Source, made: Any) -> None:
    """Into 16 bits, after they were summed in 32: none is off by more than the last of its 8 bits."""
    resident = Resident(source, TABLES, torch.float32, DEVICE)
    _, indices = made.pairs(source.config)
    bags = torch.zeros((16, 32), dtype=torch.bfloat16, device=DEVICE)
    Lookup(resident, made.HOTS, [0, 8, 16, 24])(side_by_side(indices, 16), bags)
    expected = resident.bags([torch.from_numpy(indices[number][:16]).to(DEVICE) for number in TABLES])
    assert ((bags.float() - expected).abs() <= 2.0**-7 * expected.abs()).all()


@pytest.mark.parametrize("pairs", [1, 70])
def test_fused_layers_are_the_networks(pairs: int, source: Source) -> None:
    network = Dense(source.config).eval().requires_grad_(False)
    network.load_state_dict({name.removeprefix(PREFIX): value for name, value in source.state().items()})
    network.to(DEVICE)
    torch.manual_seed(0)
    dim, width = source.config.dim, source.config.width
    dense, start = (torch.randn(pairs, columns, device=DEVICE) for columns in (source.config.dense, width))
    expected = network(dense, start[:, dim:])
    found = Fused(network)(dense, start)
    assert found.shape == (pairs,)
    assert (found - expected).abs().max() < 1e-4


class NoStream:
    """A stream, an event or a device of a machine without a GPU: all is done at once."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        assert name in ("wait_stream", "record", "synchronize")
        return lambda *_: None


@pytest.mark.skipif(ON_GPU, reason="Triton interprets only where there is no GPU")
@pytest.mark.parametrize("devices", [1, 2, 5])
def test_the_pipeline_answers_each_batch(
    devices: int, source: Source, made: Any, golden: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it copies and adds up, on as many CPUs in the GPUs' places; the first batches are the smallest."""
    for name in ("Stream", "Event", "device", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, NoStream)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    network = Dense(source.config).eval()
    network.load_state_dict({name.removeprefix(PREFIX): value for name, value in source.state().items()})
    options = BackendOptions(source.snapshot.metadata.parent.parent, max_batch=1, max_cost=20)
    pipeline = Pipeline(network, source, torch.float32, [torch.device("cpu")] * devices, options)
    dense, indices = made.pairs(source.config)
    sizes = [1, 3, 2, 30, 12]
    batches = [
        Batch(Files(dense, tuple(indices)), np.array([begin]), np.array([size]))
        for begin, size in zip(np.cumsum([0, *sizes[:-1]]).tolist(), sizes, strict=True)
    ]
    with torch.inference_mode():
        futures = [pipeline.submit(batch) for batch in batches]
    answers = np.concatenate([future.result() for future in futures])
    pipeline.close()
    assert np.abs(answers - golden["torchrec"]["small"]["probabilities"]).max() < 1e-6


@needs_gpu
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03), ("float16", 4e-3), ("int8", 0.03)]
)
def test_a_gpu_answers_as_a_cpu_does(dtype: str, tolerance: float, mini: Path, mini_dataset: Dataset) -> None:
    """Batches of many sizes, several under way."""
    answers = {}
    for device in ("cpu", "cuda"):
        backend = Backend(
            BackendOptions(mini / "model", (device,), dtype if device == "cuda" else "float32", max_batch=20)
        )
        backend.load()
        batches = [mini_dataset.gather(np.arange(first, first + 1 + first % 20)) for first in range(0, 130, 7)]
        answers[device] = np.concatenate([future.result() for future in [backend.submit(b) for b in batches]])
        backend.close()
    assert np.abs(answers["cuda"] - answers["cpu"]).max() < tolerance


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_answer_as_one_does(mini: Path, mini_dataset: Dataset) -> None:
    answers = []
    for devices in (("cuda:0",), ("cuda:0", "cuda:1")):
        backend = Backend(BackendOptions(mini / "model", devices, max_batch=20))
        backend.load()
        futures = [backend.submit(mini_dataset.gather(np.arange(first, first + 9))) for first in range(0, 90, 9)]
        answers.append(np.concatenate([future.result() for future in futures]))
        backend.close()
    assert np.abs(answers[0] - answers[1]).max() < 1e-5
