"""The network in few passes: its kernels, run by Triton's interpreter where there is no GPU, and all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bench_retinanet.anchors import level_anchors
from bench_retinanet.config import ANCHORS, FILE, read_config
from bench_retinanet.model import RetinaNet, fold, normalisation, normalised

pytest.importorskip("triton", reason="Triton is for Linux only")

from bench_retinanet.pytorch import convolutions, fused, kernels, selection
from bench_retinanet.pytorch.detection import candidates
from bench_retinanet.pytorch.fused import Fused, blocked, regrouped

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""The interpreter computes on a CPU."""
DTYPE = torch.float16 if DEVICE.type == "cuda" else torch.float32
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
    assert (F.conv2d(blocks.permute(0, 3, 1, 2), blocked(weight)) - expected).abs().max() < 0.05


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
    assert (kernels.add(x, bias, coarse) - expected).abs().max() < 1e-6


def test_what_is_over_a_limit_is_listed() -> None:
    logits, bias = last(2, ANCHORS * 5, 13, 13), last(ANCHORS * 5, 1, 1, 1).flatten()
    logits[1, 7, 2, 2] = torch.nan
    found = kernels.lists(2, 3, 3000, DEVICE)
    kernels.select(logits, bias, 0.5, 1, found)
    both = (logits + bias[:, None, None]).permute(0, 2, 3, 1).flatten(1)
    for values, places, count, expected in zip(
        found.values[:, 1], found.places[:, 1], found.counts[:, 1], both, strict=True
    ):
        wanted = (~(expected <= 0.5)).nonzero().flatten().tolist()
        assert sorted(places[:count].tolist()) == wanted
        assert torch.equal(values[:count].nan_to_num(9), expected[places[:count].long()].nan_to_num(9))
        assert (values[count:] == -torch.inf).all()
    assert (found.counts[:, [0, 2]] == 0).all()
    short = kernels.lists(2, 1, 10, DEVICE)
    kernels.select(logits, bias, 0.5, 0, short)
    assert (short.counts == found.counts[:, 1:2]).all(), "counted, though not kept"


@pytest.mark.parametrize(("width", "groups"), [(4, 32), (8, 4), (3, 10), (16, 2), (12, 3)])
def test_fewer_groups_compute_the_same(width: int, groups: int) -> None:
    weight, x = last(width * groups, width, 3, 3), last(1, width * groups, 5, 5)
    joined, fewer = regrouped(weight, groups)
    assert fewer <= groups
    expected = F.conv2d(x, weight, None, 1, 1, 1, groups)
    assert (F.conv2d(x, joined, None, 1, 1, 1, fewer) - expected).abs().max() < 0.01 * expected.abs().max()


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


@pytest.fixture
def network(small_files: Path, small_tensors: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """(ours, the model's candidates in float32 with the same weights). On a CPU PyTorch computes what cuDNN would."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(torch, "cudnn_convolution_relu", lambda x, w, b, *rest: F.conv2d(x, w, b, *rest).relu())
        added = lambda x, w, z, _, b, *rest: (F.conv2d(x, w, b, *rest) + z).relu()  # noqa: E731
        monkeypatch.setattr(torch, "cudnn_convolution_add_relu", added)
    config = read_config(small_files / FILE)
    model, exact = RetinaNet(config), RetinaNet(config)
    for one in (model, exact):
        one.load_state_dict({name: torch.from_numpy(value) for name, value in small_tensors.items()}, strict=False)
        fold(one.eval().requires_grad_(False))
    model.to(DEVICE, DTYPE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    anchors = [torch.from_numpy(boxes) for boxes in level_anchors(config)]
    return Fused(model, config, [1, 2]), lambda images: candidates(exact(images), anchors, config.image)


@torch.inference_mode()
@pytest.mark.parametrize("at_once", [0, 4])
def test_all_of_it_is_the_model(at_once: int, network: Any, small_batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Level by level, and all levels at once."""
    monkeypatch.setattr(fused, "CANVAS", at_once)
    ours, exact = network
    images = torch.from_numpy(small_batch.images)[:2]
    found = ours.select(images.to(DEVICE))
    assert not found.is_full.any()
    expected = exact(images)
    real = expected.scores > 0
    assert real.sum() > 100
    mine = [column[:, : real.shape[1]].cpu() for column in found.candidates]
    assert (mine[0] - expected.scores).abs().max() < (1e-5 if DEVICE.type == "cpu" else 0.02)
    assert (found.candidates.scores[:, real.shape[1] :] == 0).all()
    if DEVICE.type == "cpu":  # in 16 bits scores that are near each other change places
        assert (mine[1] - expected.boxes).abs().max() < 2e-3
        assert (mine[2] == expected.labels)[real].all()


@torch.inference_mode()
def test_an_image_with_more_than_its_list_holds(
    network: Any, small_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "CAPACITY", 1000)
    ours, _ = network
    images = torch.from_numpy(small_batch.images)[:1].to(DEVICE)
    ours._bias.add_(4)
    assert ours.select(images).is_full.all()
    found = ours.sort(images)
    monkeypatch.setattr(selection, "CAPACITY", 40_000)
    again = ours.select(images)
    assert not again.is_full.any()
    both = again.candidates.scores[:, : found.scores.shape[1]], found.scores
    assert (both[0] - both[1]).abs().max() < 1e-3
    assert (found.scores > 0).sum() > 1000, "more than one level's best"
