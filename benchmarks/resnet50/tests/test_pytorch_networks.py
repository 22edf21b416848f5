"""What the two networks of a GPU compute, without a GPU.

Plain PyTorch stands for Triton's kernels and cuDNN's; and Triton's interpreter shows that its kernels compute the same.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench_resnet50.backend_pytorch_gpu import Compiled, choose
from bench_resnet50.config import ResNetConfig
from bench_resnet50.model import Joint, ResNet, fold

CONFIG = ResNetConfig(layers=(2, 2, 1), width=64, classes=10, image=32)
MEAN, SCALE = torch.tensor([120.0, 110.0, 100.0]), torch.tensor([0.02, 0.018, 0.015])


def pixels(x: Tensor, side: int) -> Tensor:
    """[n * side * side, channels] -> [n, channels, side, side]."""
    return x.view(-1, side, side, x.shape[1]).permute(0, 3, 1, 2)


def rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def fewest(channels: int, device: torch.device) -> int | None:
    return {64: 1, 128: 5}.get(channels)


def fill(images: Tensor, mean: Tensor, scale: Tensor, out: Tensor) -> None:
    count, side = len(images), images.shape[1] // 2
    blocks = images.reshape(count, side, 2, side, 2, 3).permute(0, 1, 3, 2, 4, 5)
    out[:count, 2:-1, 2:-1, :12] = ((blocks - mean) * scale).flatten(3)


def entry(x: Tensor, weight: Tensor, bias: Tensor, w1: Tensor, b1: Tensor) -> tuple[Tensor, Tensor]:
    stem = torch.relu(F.conv2d(x.permute(0, 3, 1, 2), weight.view(4, 4, 16, -1).permute(3, 2, 0, 1), bias))
    pooled = rows(F.max_pool2d(stem, 3, 2, 1))
    return pooled, torch.relu(pooled @ w1 + b1)


def block(x: Tensor, before: Tensor, side: int, joint: Joint, quarter: bool = False) -> tuple[Tensor, Tensor]:
    taps = joint.taps.view(3, 3, x.shape[1], -1).permute(3, 2, 0, 1)
    middle = torch.relu(rows(F.conv2d(pixels(x, side), taps, joint.taps_bias, padding=1)))
    added = before if joint.projection is None else before @ joint.projection
    total = torch.relu(middle @ joint.expansion + joint.bias + added)
    following = torch.relu(total @ joint.following + joint.following_bias)
    return rows(pixels(total, side)[:, :, ::2, ::2]) if quarter else total, following


def convolution(x: Tensor, weight: Tensor, bias: Tensor, *shape: Any) -> Tensor:
    return torch.relu(F.conv2d(x, weight, bias, *shape))


def convolution_and_sum(x: Tensor, weight: Tensor, added: Tensor, alpha: float, bias: Tensor, *shape: Any) -> Tensor:
    return torch.relu(F.conv2d(x, weight, bias, *shape) + alpha * added)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class, on stand-ins."""
    kernels: Any = ModuleType("bench_resnet50.backend_pytorch_kernels")
    kernels.CHANNELS = 16
    for function in (fewest, fill, entry, block):
        setattr(kernels, function.__name__, function)
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    monkeypatch.setattr("bench_resnet50.backend_pytorch_kernels", kernels, raising=False)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", convolution)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", convolution_and_sum)
    monkeypatch.delitem(sys.modules, "bench_resnet50.backend_pytorch_fused", raising=False)
    from bench_resnet50.backend_pytorch_fused import Fused

    yield Fused
    sys.modules.pop("bench_resnet50.backend_pytorch_fused")


def network() -> ResNet:
    """Random, in the form that a trained one has: every normalisation shifts and scales."""
    torch.manual_seed(5)
    model = ResNet(CONFIG).eval().requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for value in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert value is not None
                value.uniform_(0.5, 1.5)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def computed(make: Callable[[ResNet, int], Any], count: int = 5) -> None:
    """Compare with the plain model; of the buffer's `count` rows all but three are of no image."""
    model = network()
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    expected = model(((images - MEAN) * SCALE).permute(0, 3, 1, 2))
    fold(model)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.modules())
    made = make(model, CONFIG.image)
    buffer = made.buffer(count)
    made.fill(buffer, images, MEAN, SCALE)
    with torch.inference_mode():
        logits = made(buffer)
    assert logits.shape == (count, 10)
    assert expected.std() > 1e-2
    assert (logits[:3] - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("count", [4, 5])  # too few images for our kernel in the second stage, and enough
def test_the_fused_network_computes_what_the_model_does(fused: Any, count: int) -> None:
    computed(fused, count)


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux only")
def test_the_kernels_compute_what_stands_for_them() -> None:
    """In a process of their own, as Triton interprets all or nothing."""
    names = "-o", "python_functions=interpreted_*"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", *names, __file__],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout


@pytest.fixture
def kernels() -> Any:
    """The real ones, interpreted."""
    return importlib.import_module("bench_resnet50.backend_pytorch_kernels")


def random(*shape: int) -> Tensor:
    """In 16 bits, as the kernels take it; about as large whatever is summed over the second dimension from the end."""
    return (torch.randn(shape) * (shape[-2] if len(shape) == 2 else 1) ** -0.5).half()


def close(actual: Tensor, expected: Tensor) -> None:
    """Sums in float32 of numbers in 16 bits, rounded once or twice."""
    assert actual.shape == expected.shape
    assert expected.std() > 0.05
    assert (actual.float() - expected).abs().max() < 4e-3 * expected.abs().max()


@pytest.mark.parametrize("programs", [1, 5, 512])  # strips of many rows to one
def interpreted_entry(kernels: Any, programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_PROGRAMS", programs)
    torch.manual_seed(1)
    x = F.pad(random(2, 28, 28, 16), (0, 0, 2, 1, 2, 1))
    weights = random(256, 64), random(64), random(64, 64), random(64)
    pooled, following = kernels.entry(x, *weights)
    expected = entry(x.float(), *(weight.float() for weight in weights))
    close(pooled, expected[0])
    close(following, expected[1])


@pytest.mark.parametrize(
    ("inner", "leaving", "entering", "quarter"),
    [(64, 64, 64, False), (64, 64, None, False), (64, 128, None, True), (128, 128, None, False)],
)
def interpreted_block(kernels: Any, inner: int, leaving: int, entering: int | None, quarter: bool) -> None:
    torch.manual_seed(2)
    side, outer, count = 6, 4 * inner, 2 * 6 * 6  # not all rows of the last program are pixels
    projection = random(entering, outer) if entering else None
    joint = Joint(
        random(9 * inner, inner),
        random(inner),
        random(inner, outer),
        random(outer),
        projection,
        random(outer, leaving),
        random(leaving),
    )
    x, before = random(1, count, inner)[0].relu(), random(1, count, entering or outer)[0].relu()
    total, following = kernels.block(x, before, side, joint, quarter)
    exact = Joint(*(None if tensor is None else tensor.float() for tensor in joint))  # type: ignore[arg-type]
    expected = block(x.float(), before.float(), side, exact, quarter)
    close(total, expected[0])
    close(following, expected[1])


@pytest.mark.parametrize(("kibibytes", "wide"), [(228, 8), (164, None), (100, None)])  # of an H100, A100, RTX 4090
def interpreted_where_memory_is_enough(
    kernels: Any, kibibytes: int, wide: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = SimpleNamespace(shared_memory_per_multiprocessor=kibibytes << 10)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    assert [kernels.fewest(channels, torch.device("cuda")) for channels in (64, 128, 256)] == [1, wide, None]


def interpreted_fetch_and_fill(kernels: Any) -> None:
    torch.manual_seed(3)
    source = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    pixels = torch.zeros((4, 32, 32, 3), dtype=torch.uint8)
    kernels.fetch(torch.tensor([source.data_ptr(), 3, 3, 0, 3, 1]), pixels)
    assert torch.equal(pixels[:3], source[[3, 0, 3]])
    assert not pixels[3].any()
    kernels.fetch(torch.zeros(6, dtype=torch.int64), pixels)  # none
    assert torch.equal(pixels[:3], source[[3, 0, 3]])
    actual, expected = torch.zeros(4, 19, 19, 16).half(), torch.zeros(4, 19, 19, 16)
    kernels.fill(pixels[:3], MEAN, SCALE, actual)
    fill(pixels[:3], MEAN, SCALE, expected)
    assert torch.equal(actual, expected.half())


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What compiling gives is PyTorch's to test."""
    monkeypatch.setattr(torch, "compile", lambda model: model)


def test_the_compiled_network_computes_what_the_model_does() -> None:
    computed(Compiled)


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 64), (torch.bfloat16, 8)])
def test_other_networks_are_compiled(dtype: torch.dtype, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    config = ResNetConfig(layers=(1, 1), width=width, classes=4, image=32)
    assert isinstance(choose(ResNet(config).to(dtype), config), Compiled)


def test_a_wide_network_in_16_bits_is_fused(fused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    model = network()
    fold(model)
    assert isinstance(choose(model.bfloat16(), CONFIG), fused)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # a PyTorch without Triton
    assert isinstance(choose(model, CONFIG), Compiled)
