"""Each network beside diffusers' or transformers', with the same random weights; sizes small, shapes as SDXL's."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers

from bench_sdxl.config import SchedulerConfig, TextConfig, UNetConfig, VAEConfig
from bench_sdxl.pytorch.euler import Schedule, schedule
from bench_sdxl.pytorch.text_encoder import TextEncoder
from bench_sdxl.pytorch.unet import UNet
from bench_sdxl.pytorch.vae import VAE
from loadgen.contracts import InputError

from .conftest import randomised

TEXT = TextConfig(
    vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, projection_dim=24
)
UNET = UNetConfig(
    sample_size=16,
    block_out_channels=(16, 32, 64),
    transformer_layers_per_block=(1, 2, 3),
    attention_head_dim=(2, 4, 8),
    cross_attention_dim=40,
    norm_num_groups=8,
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=24 + 48,
)
MINI_UNET = replace(
    UNET,
    block_out_channels=(16, 32),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    transformer_layers_per_block=(1, 1),
    attention_head_dim=(2, 4),
)
VAE_SMALL = VAEConfig(block_out_channels=(8, 16, 24, 24), norm_num_groups=4)


def official_unet(config: UNetConfig) -> Any:
    return diffusers.UNet2DConditionModel(
        **asdict(config),
        addition_embed_type="text_time",
        use_linear_projection=True,
        mid_block_type="UNetMidBlock2DCrossAttn",
    ).eval()


def official_vae(config: VAEConfig) -> Any:
    levels = len(config.block_out_channels)
    return diffusers.AutoencoderKL(
        **asdict(config),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    ).eval()


@pytest.mark.parametrize("config", [UNET, MINI_UNET], ids=["three levels", "two levels"])
@torch.inference_mode()
def test_the_unet_is_diffusers(config: UNetConfig) -> None:
    theirs, ours = official_unet(config), UNet(config).eval()
    ours.load_state_dict(randomised(theirs), strict=True)
    x, context, pooled = torch.randn(3, 4, 16, 16), torch.randn(3, 7, 40), torch.randn(3, 24)
    sizes = torch.tensor([1024.0, 768.0, 0.0, 32.0, 512.0, 1024.0])
    told = {"text_embeds": pooled, "time_ids": sizes.expand(3, -1)}
    expected = theirs(x, torch.tensor(351.0), context, added_cond_kwargs=told).sample
    found = ours(x, torch.tensor([351.0]), context, ours.added(pooled, sizes))
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_the_vae_is_diffusers() -> None:
    theirs, ours = official_vae(VAE_SMALL), VAE(VAE_SMALL, encodes=True).eval()
    ours.load_state_dict(randomised(theirs), strict=True)
    latents, images = torch.randn(2, 4, 6, 6), torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(ours.decode(latents), theirs.decode(latents).sample, rtol=0, atol=1e-4)
    mean, log_variance = ours.encode(images)
    expected = theirs.encode(images).latent_dist
    torch.testing.assert_close(mean, expected.mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(log_variance.clamp(-30, 20), expected.logvar, rtol=0, atol=1e-4)


@pytest.mark.parametrize("projects", [False, True])
@torch.inference_mode()
def test_the_text_encoders_are_transformers(projects: bool) -> None:
    config = replace(TEXT, hidden_act="gelu" if projects else "quick_gelu")
    kind: Any = transformers.CLIPTextModelWithProjection if projects else transformers.CLIPTextModel
    theirs = kind(transformers.CLIPTextConfig(**asdict(config), eos_token_id=2)).eval()
    ours = TextEncoder(config, projects).eval()
    state = randomised(theirs)
    ours.load_state_dict({n: v for n, v in state.items() if "position_ids" not in n}, strict=True)
    ids = torch.randint(1, 90, (4, 77))
    ids[:, 0] = 98
    for row, end in enumerate((5, 20, 76, 40)):
        ids[row, end:] = 99  # the greatest id ends the text, and may go on as padding
    expected = theirs(ids, output_hidden_states=True)
    hidden, pooled = ours(ids)
    torch.testing.assert_close(hidden, expected.hidden_states[-2], rtol=0, atol=1e-4)
    if projects:
        torch.testing.assert_close(pooled, expected.text_embeds, rtol=0, atol=1e-4)
    else:
        assert pooled is None


SIGMAS = """11.028336 8.390687 6.5064 5.134433 4.116698 3.347765 2.756197 2.292855 1.923444 1.623693 1.37618 1.168216
.990409 .835653 .698399 .574051 .458333 .346187 .228147 .041314 0"""
"""Of diffusers' EulerDiscreteScheduler with SDXL's config and 20 steps."""


def test_the_schedule_has_the_official_numbers() -> None:
    found = schedule(SchedulerConfig())
    assert found.timesteps.tolist() == [951 - 50 * step for step in range(20)]
    np.testing.assert_allclose(found.sigmas, [float(word) for word in SIGMAS.split()], rtol=2e-5, atol=1e-6)
    assert found.first_scale == pytest.approx(11.073581, rel=1e-6)


@pytest.mark.parametrize("steps", [20, 8])
def test_the_schedule_is_diffusers(steps: int) -> None:
    theirs: Any = diffusers.EulerDiscreteScheduler(**asdict(SchedulerConfig()))
    theirs.set_timesteps(steps)
    found: Schedule = schedule(SchedulerConfig(), steps)
    np.testing.assert_allclose(found.timesteps, theirs.timesteps.numpy())
    np.testing.assert_allclose(found.sigmas, theirs.sigmas.numpy(), rtol=1e-4, atol=1e-7)
    assert found.first_scale == pytest.approx(float(theirs.init_noise_sigma), rel=1e-4)


def test_another_kind_of_schedule_is_refused() -> None:
    with pytest.raises(InputError, match=r"scheduler_config.json: timestep_spacing 'trailing'"):
        schedule(replace(SchedulerConfig(), timestep_spacing="trailing"))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"beta_end": -1.0}, r"beta_start 0.00085 and beta_end -1.0 do not rise between 0 and 1"),
        ({"beta_start": 0.0}, r"beta_start 0.0 and"),
        ({"beta_end": 1.0}, r"beta_end 1.0 do"),
        ({"num_train_timesteps": 10}, r"num_train_timesteps 10 with steps_offset 1 leave no room for 20 steps"),
        ({"steps_offset": 50}, r"with steps_offset 50 leave no room"),
    ],
)
def test_numbers_that_make_no_schedule_are_named(change: dict[str, float], fault: str) -> None:
    """With some of them an image was drawn all the same, and the test ended VALID."""
    with pytest.raises(InputError, match=rf"scheduler_config.json: .*{fault}"):
        schedule(replace(SchedulerConfig(), **change))  # type: ignore[arg-type]
