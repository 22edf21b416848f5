"""SDXL's own sizes beside diffusers and transformers: every name and shape, and values as far as 2 GB of memory reach.

The U-Net's values are compared at its full width in two of its three levels, 0.15 of 2.6 billion weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bench_sdxl.config import TEXT_2, Configs, TextConfig, UNetConfig, VAEConfig
from bench_sdxl.pytorch.shapes import shapes
from bench_sdxl.pytorch.text_encoder import TextEncoder
from bench_sdxl.pytorch.unet import UNet
from bench_sdxl.pytorch.vae import VAE
from bench_sdxl.standins.synthetic import drawn

from .test_networks import official_unet, official_vae

WIDE = UNetConfig(
    block_out_channels=(320, 640),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 2),
    attention_head_dim=(5, 10),
)


def official_text(config: TextConfig, projects: bool) -> Any:
    kind: Any = transformers.CLIPTextModelWithProjection if projects else transformers.CLIPTextModel
    return kind(transformers.CLIPTextConfig(**asdict(config), eos_token_id=2)).eval()


OFFICIAL: dict[str, Callable[[], Any]] = {
    "text_encoder": lambda: official_text(TextConfig(), False),
    "text_encoder_2": lambda: official_text(TEXT_2, True),
    "unet": lambda: official_unet(UNetConfig()),
    "vae": lambda: official_vae(VAEConfig()),
}


@pytest.mark.parametrize("part", OFFICIAL)
def test_every_name_and_shape_is_the_official_ones(part: str) -> None:
    with torch.device("meta"):
        theirs = OFFICIAL[part]().state_dict()
    expected = {name: tuple(value.shape) for name, value in theirs.items() if not name.endswith("position_ids")}
    assert shapes(Configs())[part] == expected


def shared(ours: Any, theirs: Any) -> None:
    """The same tensors in both, once in memory."""
    names = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    draw = drawn(names, 1)
    state = {name: torch.from_numpy(draw(name)) for name in names}
    ours.eval().load_state_dict(state, strict=True, assign=True)
    missing = theirs.load_state_dict(state, strict=False, assign=True)
    assert not missing.unexpected_keys
    assert all(name.endswith("position_ids") for name in missing.missing_keys)


def on_meta(make: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        return make()


@torch.inference_mode()
def test_the_unet_at_full_width() -> None:
    theirs, ours = on_meta(lambda: official_unet(WIDE)), on_meta(lambda: UNet(WIDE))
    shared(ours, theirs)
    x, context, pooled = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 2048), torch.randn(2, 1280)
    sizes = torch.tensor([1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0])
    told = {"text_embeds": pooled, "time_ids": sizes.expand(2, -1)}
    expected = theirs(x, torch.tensor(951.0), context, added_cond_kwargs=told).sample
    found = ours(x, torch.tensor([951.0]), context, ours.added(pooled, sizes))
    assert expected.std() > 0.3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_the_decoder() -> None:
    theirs, ours = on_meta(lambda: official_vae(VAEConfig())), on_meta(lambda: VAE(VAEConfig(), encodes=True))
    shared(ours, theirs)
    latents = torch.randn(1, 4, 8, 8) * 7
    expected = theirs.decode(latents).sample
    assert expected.shape == (1, 3, 64, 64)
    assert expected.std() > 0.3
    torch.testing.assert_close(ours.decode(latents), expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_the_first_text_encoder() -> None:
    theirs, ours = official_text(TextConfig(), False), on_meta(lambda: TextEncoder(TextConfig(), False))
    shared(ours, theirs)
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 49_406, (2, 77)))
    expected = theirs(ids, output_hidden_states=True).hidden_states[-2]
    assert expected.std() > 0.3
    torch.testing.assert_close(ours(ids)[0], expected, rtol=0, atol=1e-4)
