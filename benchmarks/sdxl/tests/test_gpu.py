"""What a GPU computes, beside the plain networks. Without a GPU Triton interprets the kernels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_sdxl.config import Configs, TextConfig, UNetConfig, VAEConfig
from bench_sdxl.dataset import Batch
from bench_sdxl.pytorch import layers
from bench_sdxl.pytorch.backend import Backend
from bench_sdxl.pytorch.euler import schedule
from bench_sdxl.pytorch.pipeline import Pipeline, Told
from loadgen.contracts import BackendOptions

from .conftest import Scored, met, randomised
from .conftest import made as drawn

pytest.importorskip("triton", reason="Triton is for Linux only")

from bench_sdxl.pytorch import convolution, fused, gpu, kernels
from bench_sdxl.pytorch.attention import attend
from bench_sdxl.pytorch.convolution import Tile, fits
from bench_sdxl.pytorch.kernels import Form
from bench_sdxl.pytorch.products import FLOAT8, Convolution, Product

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
HOPPER = Path(__file__).with_name("hopper.py")
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
SMALL = UNetConfig(
    block_out_channels=(16, 32),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    transformer_layers_per_block=(1, 1),
    attention_head_dim=(2, 2),
    cross_attention_dim=40,
    norm_num_groups=2,
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=24 + 48,
)


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 is float32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    draw = torch.Generator(DEVICE).manual_seed(sum(shape))
    return torch.randn(shape, generator=draw, device=DEVICE).to(dtype)


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Channels last."""
    return noise(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


def network(made: nn.Module) -> Any:
    made.load_state_dict(randomised(made))
    return made.eval().requires_grad_(False).to(DEVICE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    assert expected.std() > 0.05
    assert found.shape == expected.shape
    assert (found.float() - expected.float()).abs().max() < tolerance * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(
    ("shape", "groups", "dtype"),
    [
        ((2, 24, 3, 5), 4, torch.float32),
        ((1, 72, 16, 17), 3, torch.float32),  # tiles that the image does not fill, in both directions
        ((1, 64, 16, 16), 2, torch.float16),
    ],
)
@pytest.mark.parametrize("silu", [False, True])
def test_group_norm(shape: tuple[int, ...], groups: int, dtype: torch.dtype, silu: bool) -> None:
    norm = network(nn.GroupNorm(groups, shape[1], eps=1e-5)).to(dtype)
    x = image(*shape, dtype=dtype) * 2 + 30  # far from zero, where squares would lose the deviation
    shift = noise(*shape[:2], dtype=dtype) * 5
    for added in (None, shift):
        sums = x.float() if added is None else x.float() + added.float()[:, :, None, None]
        expected = F.group_norm(sums, groups, norm.weight.float(), norm.bias.float(), norm.eps)
        found = kernels.group_norm(x, norm, added, silu=silu)
        close(found, F.silu(expected) if silu else expected, 1e-4 if dtype == torch.float32 else 5e-3)


@torch.inference_mode()
def test_layer_norm_adds_before() -> None:
    norm, x, delta = network(nn.LayerNorm(40)), noise(7, 40) + 20, noise(7, 40) * 3
    close(kernels.layer_norm(x, norm), norm(x))
    expected = x + delta
    close(kernels.layer_norm(x, norm, delta), norm(expected))
    close(x, expected)


def test_gelu_gated_and_sums() -> None:
    x = noise(6, 2 * 600)
    value, gate = x.chunk(2, dim=-1)
    close(kernels.gelu_gated(x), value * F.gelu(gate))
    a, b, bias = image(2, 24, 5, 7), image(2, 24, 5, 7) + 1, noise(24)
    expected = a + b + bias[:, None, None]
    close(kernels.add(a, b, bias), expected)


@torch.inference_mode()
def test_attention_to_few_tokens() -> None:
    q, context = noise(2 * 30, 3 * 24), noise(2, 2, 3, 7, 24)
    expected = F.scaled_dot_product_attention(q.view(2, 30, 3, 24).transpose(1, 2), *context)
    found = kernels.converted(attend(q, context, Form(q.dtype, 2.0)), Form(torch.float32, 0.5))
    close(found, expected.transpose(1, 2).reshape(60, 72))


@pytest.mark.parametrize("shape", [(1, 16, 8, 8), (2, 32, 4, 16), (1, 16, 2, 64)])
@torch.inference_mode()
def test_convolutions(shape: tuple[int, ...]) -> None:
    """Tiles of several lines, of one, and of part of one; of both kinds of weights. A GPU's products of numbers in 32
    bits have 11 of their 24 digits, which is why none are made so: see `is_offered`."""
    tolerance = 2e-3 if ON_GPU else 2e-5
    tile = Tile(32, 64, 16, 2)
    weight, bias, x = noise(64, shape[1], 3, 3) / 12, noise(64), image(*shape)
    assert fits(*shape[2:], shape[1], 64, tile)
    found = convolution.convolve(x, convolution.flat(weight), 0.5, x.dtype, tile)
    close(found, 0.5 * F.conv2d(x, weight, padding=1), tolerance)
    found = convolution.convolve_doubled(x, convolution.doubled(weight), bias, tile)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    close(found, expected, tolerance)


def test_no_convolution_multiplies_what_lies_in_registers() -> None:
    """As compiled for an H200, which needs none: Triton 3.6 writes there while a product still reads."""
    env = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, str(HOPPER)], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    kernels = done.stdout.split("tt.func public")[1:]
    assert len(kernels) == 7
    for kernel in kernels:  # a product's left side: a part of shared memory, or a tensor in registers
        assert set(re.findall(r"warp_group_dot .*} : (!?[\w.]+)<", kernel)) == {"!ttg.memdesc"}, kernel[:1000]


@pytest.mark.parametrize("inputs", [8, 16])
@torch.inference_mode()
def test_a_residual_block_without_time(inputs: int) -> None:
    block, x = network(layers.ResnetBlock(inputs, 16, 4, 1e-6)), image(2, inputs, 6, 5)
    close(fused.ResnetBlock(block)(x), block(x))


CONFIGS = Configs(
    text=TextConfig(hidden_size=16),
    text_2=TextConfig(hidden_size=24, projection_dim=24),
    unet=SMALL,
    vae=VAEConfig(block_out_channels=(8, 16), norm_num_groups=2, layers_per_block=1),
)


@pytest.fixture
def pipeline() -> Any:
    """Without text encoders."""
    made = Pipeline(CONFIGS)
    del made.text_encoder, made.text_encoder_2
    return network(made)


@torch.inference_mode()
def test_a_fused_pipeline(pipeline: Pipeline) -> None:
    """Two steps, and the image of what comes out."""
    told, negative = Told(noise(1, 7, 40), noise(1, 24)), Told(noise(1, 9, 40)[:, 2:], noise(1, 24) + 1)
    plan, start = schedule(CONFIGS.scheduler, 2), noise(1, 4, 4, 4)
    expected = pipeline.denoise(told, negative, start, plan, 2.0)
    painted = pipeline.vae.decode(expected)
    fused.fuse(pipeline)
    close(pipeline.denoise(told, negative, start, plan, 2.0), expected, 1e-4)
    close(pipeline.vae.decode(expected), painted, 1e-4)


@torch.inference_mode()
def test_a_quantised_product() -> None:
    """Each number is off by 1/16 of itself at most, so a sum of many by much less than that of its size."""
    half = noise(40, 64, dtype=torch.bfloat16)
    product = Product(noise(48, 64, dtype=torch.bfloat16) / 8, noise(48, dtype=torch.bfloat16))
    assert product.can_be_quantised
    product.watch()
    expected = product(half)
    product.quantise()
    assert product.form.factor == pytest.approx(448 / (4 * float(half.abs().max())))
    found = product(kernels.converted(half, product.form))
    assert found.dtype == torch.bfloat16
    assert 0.005 < (found - expected).float().std() / expected.float().std() < 0.06


@torch.inference_mode()
def test_a_quantised_convolution() -> None:
    """Triton's interpreter cuts digits off instead of rounding."""
    block = network(layers.ResnetBlock(128, 128, 8, 1e-6)).to(torch.bfloat16)
    x = image(1, 128, 16, 16, dtype=torch.bfloat16)
    expected = block(x)
    made = fused.ResnetBlock(block)
    for product in made.products:
        assert product.can_be_quantised
        product.watch()
    plain = made(x)
    for product in made.products:
        product.quantise()
    found = made(x)
    assert (plain - expected).float().std() < 0.02 * expected.float().std()
    assert (
        0.005 < (found - expected).float().std() / expected.float().std() < 0.1
    )  # Triton's interpreter cuts digits off


def test_which_products_of_a_unet_are_quantised(pipeline: Pipeline) -> None:
    """Six of each Transformer's block; here all convolutions are too narrow."""
    fused.fuse(pipeline)
    found = pipeline.unet.products
    assert len(found) == 4 * 6
    assert not any(isinstance(product, Convolution) for product in found)


@torch.inference_mode()
def test_products_are_quantised_for_what_an_image_needs(pipeline: Pipeline) -> None:
    fused.fuse(pipeline)
    products = pipeline.unet.products
    numbers = [noise(1, product.weight.shape[1]) for product in products]

    class Unet:
        def __init__(self) -> None:
            self.products = products

    def denoise(*_: Any) -> None:
        for product, x in zip(products, numbers, strict=True):
            product(0.5 * x)
            product(x)

    told = Told(noise(1, 7, 40), noise(1, 24))
    drawn: Any = SimpleNamespace(unet=Unet(), configs=CONFIGS, denoise=denoise)
    gpu.quantise(drawn, told, schedule(CONFIGS.scheduler, 1))
    for product, x in zip(products, numbers, strict=True):
        assert product.weight.dtype == FLOAT8
        assert product.form.factor == pytest.approx(448 / (4 * float(x.abs().max())))


def test_a_batch_is_rounded_up_to_a_power_of_two() -> None:
    assert gpu.sizes(1) == [1]
    assert gpu.sizes(6) == [6, 4, 2, 1]
    assert gpu.sizes(8) == [8, 4, 2, 1]


def loaded(mini: Path, dtype: str, most: int) -> Backend:
    backend = Backend(BackendOptions(mini / "model", devices=("cuda",), dtype=dtype, max_batch=most))
    backend.load()
    return backend


@needs_gpu
def test_a_gpu_draws_what_a_cpu_does(mini: Path, batch: Batch, backend: Backend) -> None:
    """Batches of several sizes, more than one on the way, one of them twice."""
    made = loaded(mini, "float32", 6)
    rows = [np.arange(3), np.array([9]), np.arange(20, 26), np.array([0, 5]), np.arange(20, 26)]
    parts = [Batch(batch.ids[at], batch.ids_2[at], batch.latents) for at in rows]
    flying = [made.submit(part) for part in parts]
    for part, future in zip(parts, flying, strict=True):
        expected = backend.submit(part).result()
        assert future.result().shape == expected.shape
        assert np.abs(future.result().astype(int) - expected).max() <= 1
    with pytest.raises(ValueError, match="a batch of 7 prompts is larger than the largest of 6"):
        made.submit(Batch(batch.ids[:7], batch.ids_2[:7], batch.latents))
    made.close()


@needs_gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8"])
def test_fewer_bits_meet_the_target(dtype: str, mini: Path, batch: Batch, scored: Scored) -> None:
    made = loaded(mini, dtype, 8)
    assert met(scored(drawn(made, batch, 8)))
    made.close()
