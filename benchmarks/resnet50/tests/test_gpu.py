"""A GPU's networks and its pipeline. Without a GPU Triton interprets the kernels; the pipeline needs one."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench_resnet50.batch import NORMALISATIONS, Batch, normalised
from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.model import ResNet, fold
from bench_resnet50.official import PYTORCH
from bench_resnet50.standins.formats import write_pytorch
from bench_resnet50.standins.synthetic import random_tensors

pytest.importorskip("triton", reason="Triton is for Linux only")

from bench_resnet50.pytorch import gpu, kernels
from bench_resnet50.pytorch.fused import Fused
from bench_resnet50.pytorch.gpu import Compiled, choose, constants, sizes

CONFIG = ResNetConfig(layers=(2, 2, 1), width=64, classes=10, image=56)
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="needs a GPU")


@pytest.fixture
def plain() -> ResNet:
    """Folded, in float32; every normalisation shifted and scaled before."""
    torch.manual_seed(5)
    model = ResNet(CONFIG).eval().requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for value in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert value is not None
                value.uniform_(0.5, 1.5)
    fold(model)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.modules())
    return model.to(DEVICE)


@pytest.fixture
def half(plain: ResNet) -> ResNet:
    """Its copy in 16 bits."""
    model = ResNet(CONFIG).eval().requires_grad_(False)
    fold(model)
    model.load_state_dict(plain.state_dict())
    return model.to(DEVICE).half().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(autouse=True)
def _cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain convolutions in place of cuDNN's, where there is none."""

    def relu(x: Tensor, weight: Tensor, bias: Tensor, *shape: Any) -> Tensor:
        return torch.relu(F.conv2d(x, weight, bias, *shape))

    def add_relu(x: Tensor, weight: Tensor, added: Tensor, alpha: float, bias: Tensor, *shape: Any) -> Tensor:
        return torch.relu(F.conv2d(x, weight, bias, *shape) + alpha * added)

    if not ON_GPU:
        monkeypatch.setattr(torch, "cudnn_convolution_relu", relu)
        monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add_relu)


def pictures(count: int) -> Tensor:
    """Pixels [count, H, W, 3], uint8."""
    torch.manual_seed(1)
    return torch.randint(0, 256, (count, CONFIG.image, CONFIG.image, 3), dtype=torch.uint8, device=DEVICE)


def read(images: Tensor) -> Tensor:
    """What a network reads of them."""
    mean, scale = constants("torch", DEVICE)
    return ((images - mean) * scale).permute(0, 3, 1, 2)


def filled(network: Any, images: Tensor, count: int) -> Tensor:
    """A buffer of `count` images, of which the last ones are none."""
    buffer: Tensor = network.buffer(count)
    network.fill(buffer, images, *constants("torch", DEVICE))
    return buffer


def close(rows: Tensor, expected: Tensor) -> None:
    """[pixels, channels] beside [n, channels, side, side]: sums in float32 of numbers in 16 bits."""
    expected = expected.permute(0, 2, 3, 1).flatten(0, 2)
    assert rows.shape == expected.shape
    assert expected.std() > 0.01
    assert (rows.float() - expected).abs().max() < 8e-3 * expected.abs().max()


@pytest.mark.parametrize("programs", [1, 6, 512])  # strips of 14 rows, of 7 and of one
def test_the_kernels_compute_what_the_layers_do(
    programs: int, plain: ResNet, half: ResNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry, a block with a projection and one without; pixels do not fill the last tile."""
    monkeypatch.setattr(kernels, "_PROGRAMS", programs)
    images = pictures(3)
    network = Fused(half, CONFIG.image)
    x = F.max_pool2d(torch.relu(plain.conv1(read(images))), 3, 2, 1)
    blocks = [block for stage in plain.stages for block in plain.get_submodule(stage).children()]
    total, following = kernels.entry(filled(network, images, 3), *network._entry)
    close(total, x)
    close(following, torch.relu(blocks[0].conv1(x)))
    assert [joint.projection is None for joint in network._joints] == [False, True]
    for joint, block, after in zip(network._joints, blocks, blocks[1:], strict=False):
        total, following = kernels.block(following, total, CONFIG.image // 4, joint)
        x = block(x)
        close(total, x)
        close(following, torch.relu(after.conv1(x)))


@pytest.mark.parametrize("kind", [Fused, Compiled])
def test_a_network_computes_what_the_model_does(
    kind: Any, plain: ResNet, half: ResNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)  # what compiling gives is PyTorch's to test
    images = pictures(3)
    expected = plain(read(images))
    network = kind(half if kind is Fused else plain, CONFIG.image)
    with torch.inference_mode():
        logits = network(filled(network, images, 5))
    assert logits.shape == (5, 10)
    assert expected.std() > 1e-2
    assert (logits[:3] - expected).abs().max() < (1e-2 if kind is Fused else 1e-4) * expected.abs().max()


def test_pixels_are_fetched_from_where_they_lie() -> None:
    source = pictures(5).cpu()
    named = torch.tensor([source.data_ptr(), 3, 3, 0, 3, 1])
    if ON_GPU:
        source, named = source.pin_memory(), named.pin_memory()
        named[0] = source.data_ptr()
    pixels = torch.zeros((4, CONFIG.image, CONFIG.image, 3), dtype=torch.uint8, device=DEVICE)
    for names in (named, torch.zeros_like(named, pin_memory=ON_GPU)):  # the second names none
        kernels.fetch(names, pixels)
        assert torch.equal(pixels[:3].cpu(), source[[3, 0, 3]])
        assert not pixels[3].any()


@pytest.mark.parametrize(
    ("width", "dtype", "kind"),
    [(64, torch.bfloat16, Fused), (64, torch.float32, Compiled), (8, torch.bfloat16, Compiled)],
)
def test_wide_networks_in_16_bits_are_fused(
    width: int, dtype: torch.dtype, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    config = ResNetConfig(layers=(1, 1), width=width, classes=4, image=32)
    model = ResNet(config)
    fold(model.eval())
    assert isinstance(choose(model.to(dtype), config), kind)


@pytest.mark.parametrize("variant", NORMALISATIONS)
def test_constants_are_those_of_pixels(variant: str) -> None:
    mean, scale = constants(variant, torch.device("cpu"))
    pixels = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    expected = normalised(Batch(pixels[None, None], variant))[0, 0]
    assert np.allclose((pixels - mean.numpy()) * scale.numpy(), expected, atol=2e-5)


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_config(tmp_path / FILE, CONFIG)
    write_pytorch(tmp_path / PYTORCH, CONFIG, random_tensors(CONFIG, 1))
    return tmp_path


@needs_gpu
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-3), ("float16", 0.1), ("bfloat16", 0.5)])
def test_each_batch_gets_the_logits_of_its_own_images(
    dtype: str, error: float, folder: Path, load: Callable[..., Any]
) -> None:
    rng = np.random.default_rng(1)
    source, other = (rng.integers(0, 256, (30, CONFIG.image, CONFIG.image, 3), np.uint8) for _ in range(2))
    batches = [Batch(source, "tf", rng.integers(0, 30, count)) for count in (3, 20, 1, 7, 2)]
    batches += [Batch(other, "torch", np.array([29, 0, 29])), Batch(source[:5].copy(), "torch")]  # of another process
    batches += [Batch(source, "tf", np.arange(19))]
    backend, exact = load("pytorch", folder, devices=("cuda",), dtype=dtype, max_batch=20), load("pytorch", folder)
    launched = [backend.submit(batch) for batch in batches]
    assert not wait(launched, timeout=60).not_done
    for batch, answer in zip(batches, launched, strict=True):
        expected = exact.submit(batch).result()
        assert answer.result().shape == expected.shape
        assert np.abs(answer.result() - expected).max() < error * np.abs(expected).max()
    with pytest.raises(ValueError, match="21 images is larger than the largest of 20"):
        backend.submit(Batch(source[:21]))


@needs_gpu
def test_memory_is_locked_once_and_until_it_is_freed() -> None:
    locked, first, second = gpu.PageLocked(), np.zeros(5000, np.uint8), np.zeros(3000, np.uint8)
    assert [locked.address(first), locked.address(first)] == [first.ctypes.data] * 2
    locked.address(second)
    assert torch.from_numpy(first).is_pinned()
    del first
    gc.collect()
    assert list(locked._known) == [second.ctypes.data]
    locked.close()
    assert not torch.from_numpy(second).is_pinned()


@needs_gpu
def test_a_failed_kernel_fails_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = gpu.Launched(torch.ones(1, 2).pin_memory())

    def fail() -> None:
        raise RuntimeError("CUDA error")

    launched._ready = type("Event", (), {"synchronize": lambda _: fail(), "query": lambda _: fail()})()
    for finish in (lambda: None, launched.finish):
        finish()
        with pytest.raises(RuntimeError, match="CUDA error"):
            launched.result()
