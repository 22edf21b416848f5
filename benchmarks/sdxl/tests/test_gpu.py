"""What a GPU computes, beside the plain networks. Without a GPU Triton interprets the kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_sdxl.config import UNetConfig, VAEConfig
from bench_sdxl.pytorch import layers, unet, vae

from .conftest import randomised

pytest.importorskip("triton", reason="Triton is for Linux only")

from bench_sdxl.pytorch import fused, kernels

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
SMALL = UNetConfig(
    block_out_channels=(16, 24),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    transformer_layers_per_block=(1, 2),
    attention_head_dim=(2, 3),
    cross_attention_dim=40,
    norm_num_groups=4,
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


@pytest.mark.parametrize("inputs", [8, 16])
@torch.inference_mode()
def test_a_residual_block_without_time(inputs: int) -> None:
    block, x = network(layers.ResnetBlock(inputs, 16, 4, 1e-6)), image(2, inputs, 6, 5)
    close(fused.ResnetBlock(block, None)(x), block(x))


@torch.inference_mode()
def test_the_unet() -> None:
    """Two steps of three prompts, of which the embeddings of times and the keys are computed before."""
    plain = network(unet.UNet(SMALL))
    x, context = image(3, 4, 6, 6), noise(3, 7, 40)
    added = plain.added(noise(3, 24), torch.tensor([1024.0, 1024, 0, 0, 1024, 1024], device=DEVICE))
    timesteps = torch.tensor([951.0, 351.0], device=DEVICE)
    expected = [plain(x, timesteps[step : step + 1], context, added) for step in range(2)]
    made = fused.UNet(plain)
    times, told = made.times(timesteps, added), made.told(context)
    for step in range(2):
        close(made(x, times[step], told), expected[step], 1e-4)


@torch.inference_mode()
def test_the_decoder() -> None:
    plain, latents = network(vae.VAE(VAEConfig(block_out_channels=(8, 16), norm_num_groups=4))), image(2, 4, 5, 4)
    expected = plain.decode(latents)
    close(fused.Decoder(plain)(latents), expected, 1e-4)
