"""The network in few passes: its kernels, run by Triton's interpreter where there is no GPU, and all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bench_retinanet.config import ANCHORS, FILE, RetinaNetConfig, read_config
from bench_retinanet.model import RetinaNet, fold, normalisation, normalised

pytest.importorskip("triton", reason="Triton is for Linux only")

from bench_retinanet.pytorch import convolutions, kernels
from bench_retinanet.pytorch.fused import Fused, blocked, regrouped

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""The interpreter computes on a CPU."""
needs_gpu = pytest.mark.skipif(DEVICE.type == "cpu", reason="no GPU here")


def last(*shape: int) -> Any:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return values.to(DEVICE).contiguous(memory_format=torch.channels_last)


def test_a_stem_of_blocks_is_the_stem() -> None:
    weight, images = last(8, 3, 7, 7), torch.rand(2, 3, 36, 36).to(DEVICE)
    blocks = torch.zeros(2, 21, 21, kernels.CHANNELS, device=DEVICE)
    constants = normalisation(DEVICE)
    kernels.fill(images, *constants, blocks)
    expected = F.conv2d(normalised(images, constants), weight, None, 2, 3)
    assert F.conv2d(blocks.permute(0, 3, 1, 2), blocked(weight)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("side", [7, 8])
def test_pooling(side: int) -> None:
    x = torch.relu(last(2, 24, side, side))
    assert (kernels.pooled(x) == F.max_pool2d(x, 3, 2, 1)).all()


@pytest.mark.parametrize(("side", "small"), [(10, 5), (9, 5), (7, 0)])
def test_a_bias_and_a_coarser_level_are_added(side: int, small: int) -> None:
    x, bias = last(2, 24, side, side), last(24, 1, 1, 1).flatten()
    coarse = last(2, 24, small, small) if small else None
    expected = x + bias[:, None, None]
    if coarse is not None:
        expected += F.interpolate(coarse, size=(side, side), mode="nearest")
    assert kernels.add(x, bias, coarse) == pytest.approx(expected, abs=1e-6)


def test_the_best_of_each_anchor() -> None:
    logits, bias = last(2, ANCHORS * 5, 3, 3), last(ANCHORS * 5, 1, 1, 1).flatten()
    expected = (logits + bias[:, None, None]).permute(0, 2, 3, 1).reshape(2, -1, 5).amax(2)
    assert kernels.best(logits, bias, ANCHORS) == pytest.approx(expected)
    logits[0, 7] = torch.nan
    assert kernels.best(logits, bias, ANCHORS).isnan().sum() == 9, "one anchor of each place"


@pytest.mark.parametrize(("width", "groups"), [(4, 32), (8, 4), (3, 10), (16, 2), (12, 3)])
def test_fewer_groups_compute_the_same(width: int, groups: int) -> None:
    weight, x = last(width * groups, width, 3, 3), last(1, width * groups, 5, 5)
    joined, fewer = regrouped(weight, groups)
    assert fewer <= groups
    assert F.conv2d(x, joined, None, 1, 1, 1, fewer) == pytest.approx(
        F.conv2d(x, weight, None, 1, 1, 1, groups), abs=1e-4
    )


def test_weights_of_small_groups_lie_as_threads_read_them() -> None:
    """By the layout that PTX gives for products of 16 x 8 x 16; zero where a channel is of another group."""
    width = 8
    weight = torch.arange(1, 64 * width * 9 + 1).reshape(64, width, 3, 3)
    shape = (2, 3, 3, 2, 4, 2, 4, 2, 2, 2)
    found = convolutions.ordered(weight)
    assert found.shape == shape
    assert (found != 0).sum() == weight.numel()
    rng = np.random.default_rng(0)
    for _ in range(300):
        at = tuple(rng.integers(shape).tolist())
        chunk, column, row, half, quarter, odd, thread, product, part, number = at
        output = chunk * 32 + half * 16 + quarter * 4 + product * 2 + odd
        given = chunk * 32 + half * 16 + part * 8 + thread * 2 + number
        own = weight[output, given % width, row, column] if output // width == given // width else 0
        assert found[at] == own


def test_weights_of_the_stem_lie_as_threads_read_them() -> None:
    weight = torch.arange(128 * 16 * 16).reshape(128, 16, 4, 4)
    shape = (16, 2, 2, 2, 4, 2, 4, 2, 2, 2)
    found = convolutions.stem_ordered(weight)
    assert found.shape == shape
    rng = np.random.default_rng(0)
    for _ in range(300):
        at = tuple(rng.integers(shape).tolist())
        tap, block, half, pair, quarter, odd, thread, product, part, number = at
        output = block * 64 + half * 32 + quarter * 8 + pair * 4 + product * 2 + odd
        assert found[at] == weight[output, part * 8 + thread * 2 + number, tap // 4, tap % 4]


@needs_gpu
@pytest.mark.parametrize("side", [16, 37])
def test_the_stem_on_a_gpu(side: int) -> None:
    weight, bias = last(64, 16, 4, 4).half(), last(64, 1, 1, 1).flatten().half()
    ours = convolutions.kernels_for(weight)
    assert ours
    blocks = last(2, 16, side + 3, side + 3).half()
    expected = F.conv2d(blocks.float(), weight.float(), bias.float()).relu()
    found = convolutions.Stem(weight, bias, ours)(blocks.permute(0, 2, 3, 1).contiguous())
    assert (found - expected).abs().max() < 0.05


@needs_gpu
@pytest.mark.parametrize(("channels", "width", "side"), [(64, 4, 21), (32, 8, 16), (96, 16, 50)])
def test_small_groups_on_a_gpu(channels: int, width: int, side: int) -> None:
    layer = torch.nn.Conv2d(channels, channels, 3, 1, 1, groups=channels // width).requires_grad_(False)
    layer.to(DEVICE, torch.float16)
    kernels_of_ours = convolutions.kernels_for(layer.weight)
    assert kernels_of_ours
    assert layer.bias is not None
    x = last(3, channels, side, side)
    expected = F.conv2d(x.half().float(), layer.weight.float(), layer.bias.float(), 1, 1, 1, channels // width).relu()
    assert (convolutions.Grouped(layer, kernels_of_ours)(x.half()) - expected).abs().max() < 0.01


def levels(config: RetinaNetConfig, tensors: dict[str, Any], images: torch.Tensor, dtype: torch.dtype) -> Any:
    """(ours, the model's in float32 with the same weights): logits with their bias, and deltas, of each level."""
    model = RetinaNet(config)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()}, strict=False)
    fold(model.eval().requires_grad_(False))
    model.to(DEVICE, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = Fused(model, config, [len(images)]).levels(images)
    ours = [(level.logits + (0 if level.bias is None else level.bias[:, None, None]), level.deltas) for level in found]
    return ours, model.float()(images)


@torch.inference_mode()
@pytest.mark.parametrize("count", [2, 5])
def test_all_of_it_is_the_model(
    count: int, small_files: Path, small_tensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 images: level by level; 2: all levels at once. On a CPU PyTorch computes what cuDNN would."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(torch, "cudnn_convolution_relu", lambda x, w, b, *rest: F.conv2d(x, w, b, *rest).relu())
        added = lambda x, w, z, _, b, *rest: (F.conv2d(x, w, b, *rest) + z).relu()  # noqa: E731
        monkeypatch.setattr(torch, "cudnn_convolution_add_relu", added)
    dtype, error = (torch.float32, 1e-4) if DEVICE.type == "cpu" else (torch.float16, 0.02)
    config = read_config(small_files / FILE)
    images = torch.rand((count, 3, config.image, config.image), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    ours, exact = levels(config, small_tensors, images, dtype)
    for (logits, deltas), level in zip(ours, exact, strict=True):
        assert (logits - level.logits).abs().max() < error * max(1, level.logits.std())
        assert (deltas - level.deltas).abs().max() < error
