"""The sliding window on a device: its arithmetic on a CPU here, all of it where there is a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench_3d_unet.config import FILE, UNetConfig, read_config
from bench_3d_unet.dataset import Batch
from bench_3d_unet.model import UNet
from bench_3d_unet.pytorch import gpu
from bench_3d_unet.pytorch.backend import one_by_one
from bench_3d_unet.pytorch.gpu import NormReLU, Pipeline, fuse
from bench_3d_unet.pytorch.network import Network, by_rows, by_threads, fits, launcher
from bench_3d_unet.standins.synthetic import random_tensors

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def model(small_files: Path, small_tensors: dict[str, Any]) -> UNet:
    network = UNet(read_config(small_files / FILE))
    network.load_state_dict({name: torch.from_numpy(value) for name, value in small_tensors.items()})
    return network.eval().requires_grad_(False)


def test_norm_and_relu_are_pytorchs() -> None:
    torch.manual_seed(0)
    norm = nn.InstanceNorm3d(5, affine=True)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 6, 4, 8) * 3 + 1
    with torch.inference_mode():
        expected = torch.relu(norm(x))
        assert NormReLU(norm)(x.to(memory_format=torch.channels_last_3d)) == pytest.approx(expected, abs=1e-5)


def test_every_layer_is_fused(model: UNet) -> None:
    x = torch.randn(2, 1, 16, 16, 16)
    expected = model(x)
    fused = fuse(model, compiles=False)
    assert sum(isinstance(module, NormReLU) for module in fused.modules()) == 14  # 7 blocks of two
    assert not any(isinstance(module, (nn.InstanceNorm3d, nn.ReLU)) for module in fused.modules())
    assert fused(x) == pytest.approx(expected, abs=1e-5)


def test_groups_are_as_large_as_there_are() -> None:
    sizes = gpu._sizes(8)
    assert sizes == [8, 4, 2, 1]
    cuts: Any = range(50)
    assert [len(group) for group in gpu._groups(cuts, sizes)] == [8] * 6 + [2]
    assert [cut for group in gpu._groups(cuts, sizes) for cut in group] == list(cuts)


def test_labels_are_those_of_a_loop(model: UNet, small_files: Path, small_volumes: list[Any], load: Any) -> None:
    """Windows of three volumes in groups, against one window at a time."""
    alone = one_by_one(load("pytorch", small_files), Batch(small_volumes))
    pipeline = Pipeline(model, 16, 4, CPU)
    together = pipeline.submit(Batch(small_volumes)).result()
    pipeline.close()
    for ours, theirs, volume in zip(together, alone, small_volumes, strict=True):
        assert ours.dtype == np.uint8
        assert ours.shape == volume.shape
        assert (ours == theirs).all()
    assert len(np.unique(np.concatenate([labels.ravel() for labels in alone]))) == 3


def test_logits_that_are_not_finite_are_an_error(model: UNet, small_volumes: list[Any]) -> None:
    pipeline = Pipeline(model, 16, 4, CPU)
    volume = small_volumes[0].copy()
    volume[3, 4, 5] = np.inf
    future = pipeline.submit(Batch([small_volumes[1], volume]))
    with pytest.raises(ValueError, match="not all finite"):
        future.result()
    pipeline.close()


def test_weights_lie_as_threads_read_them() -> None:
    """By the layout that PTX gives for products of 16 x 8 x 16: a thread's columns, and two inputs in 32 bits."""
    weights = torch.arange(3 * 64 * 96).reshape(3, 64, 96)  # taps, inputs, outputs
    rng = np.random.default_rng(0)
    shape = (3, 2, 3, 2, 2, 8, 4, 2, 2, 2)  # blocks of outputs, chunks of inputs, taps, halves, pairs, and of a thread
    rows, threads = by_rows(weights).reshape(shape), by_threads(weights).reshape(shape)
    for _ in range(300):
        at = tuple(rng.integers(shape).tolist())
        block, chunk, tap, half, pair, g, t, product, part, number = at
        output = block * 32 + g // 2 * 8 + (pair * 2 + product) * 2 + g % 2  # so that a thread ends with 8 neighbours
        assert rows[at] == weights[tap, chunk * 32 + half * 16 + part * 8 + t * 2 + number, output]
        assert threads[at] == weights[tap, chunk * 32 + t * 8 + half * 4 + part * 2 + number, output]


def test_every_layer_goes_to_a_kernel() -> None:
    """The full model's, without computing: how often, and that their sizes fit each other."""
    with torch.device("meta"):
        model = UNet(UNetConfig()).bfloat16().requires_grad_(False)
    launched: list[str] = []
    network = Network(model, 128, lambda name, *_, **__: launched.append(name))
    logits = network(torch.empty((8, 1, 128, 128, 128), dtype=torch.bfloat16, device="meta"))
    assert (logits.shape, logits.dtype) == ((8, 3, 128, 128, 128), torch.float32)
    counts = {"enter": 1, "convolve": 12, "descend": 3, "gather": 6, "settle": 22, "rise": 5, "leave": 1}
    assert {name: launched.count(name) for name in counts} == counts
    assert fits(model, 128)
    assert not fits(UNet(UNetConfig((8, 16, 32), 32)), 32)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_compute_the_model(dtype: torch.dtype) -> None:
    """All of them: sides of 32 and 16 are tiles, those of 8 and 4 are gathered."""
    config = UNetConfig((32, 64, 96, 64), 32)
    model = UNet(config).eval().requires_grad_(False)
    tensors = {name: torch.from_numpy(value) for name, value in random_tensors(config, 3).items()}
    model.load_state_dict(tensors)
    model.to(dtype)
    x = torch.randn(3, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    ours = Network(model.to("cuda"), 32, launcher(torch.device("cuda"), dtype))(x.cuda()).cpu()
    exact = model.to("cpu", torch.float32)(x.float())
    error = (ours - exact).abs().mean() / exact.std()
    assert error < {torch.bfloat16: 0.02, torch.float16: 0.003}[dtype]


@needs_gpu
@pytest.mark.parametrize(("dtype", "share"), [("float32", 0.001), ("bfloat16", 0.05), ("float16", 0.01)])
def test_a_gpus_labels(dtype: str, share: float, small_files: Path, small_volumes: list[Any], load: Any) -> None:
    """share: of labels that may differ from those of a loop on the CPU; random weights leave many near a tie."""
    alone = one_by_one(load("pytorch", small_files), Batch(small_volumes))
    backend = load("pytorch", small_files, devices=("cuda",), dtype=dtype)
    for _ in range(2):
        found = backend.submit(Batch(small_volumes)).result()
        assert np.mean(np.concatenate([(a != b).ravel() for a, b in zip(found, alone, strict=True)])) < share
