"""The synthetic profile: SDXL's own sizes, captions as long as COCO's, weights that stay finite in 16 bits."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench_sdxl.config import Configs, UNetConfig
from bench_sdxl.dataset import Dataset
from bench_sdxl.layout import read_configs
from bench_sdxl.pytorch.shapes import shapes
from bench_sdxl.pytorch.unet import UNet
from bench_sdxl.pytorch.vae import VAE
from bench_sdxl.standins import synthetic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    synthetic.prepare(folder)
    return folder


def test_the_model_is_sdxl_base(folder: Path) -> None:
    assert read_configs(folder / "model") == Configs()
    found = shapes(Configs())
    sizes = {part: (len(names), sum(map(math.prod, names.values()))) for part, names in found.items()}
    assert sizes == {
        "unet": (1680, 2_567_463_684),
        "text_encoder": (196, 123_060_480),
        "text_encoder_2": (517, 694_659_840),
        "vae": (248, 83_653_863),
    }
    assert found["unet"]["down_blocks.1.attentions.0.transformer_blocks.1.ff.net.0.proj.weight"] == (5120, 640)
    assert found["unet"]["add_embedding.linear_1.weight"] == (1280, 2816)
    assert found["text_encoder_2"]["text_projection.weight"] == (1280, 1280)


def test_captions_are_as_many_and_as_long_as_cocos(folder: Path) -> None:
    data = Dataset(folder)
    assert data.total_count == len(set(data.captions)) == 5_000
    batch = data.gather(np.arange(5_000))
    assert batch.ids.shape == batch.ids_2.shape == (5_000, 77)
    assert batch.latents.shape == (1, 4, 128, 128)
    tokens = (batch.ids != data.tokenizers[0].end).sum(axis=1)
    assert 9 < tokens.mean() < 20, "COCO's captions have 12"
    assert len(data.tokenizers[0].ids) == 49_408
    assert len(np.unique(batch.ids)) > 2_500, "embeddings are read all over"


def test_preparing_twice_changes_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    synthetic.prepare(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


DEEP = UNetConfig(
    sample_size=16,
    block_out_channels=(32, 64, 128),
    attention_head_dim=(1, 2, 4),
    cross_attention_dim=64,
    projection_class_embeddings_input_dim=32 + 6 * 16,
    addition_time_embed_dim=16,
)
"""As deep as SDXL's, a tenth as wide."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_activations_stay_near_one_at_full_depth(dtype: torch.dtype) -> None:
    """What the greatest number in 16 bits is, 65,504, stays far away."""
    greatest: list[float] = []
    configs = replace(Configs(), unet=DEEP)
    made = {"unet": UNet(DEEP), "vae": VAE(configs.vae)}
    for part, network in made.items():
        found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        draw = synthetic.drawn(found, 1)
        network.load_state_dict({name: torch.from_numpy(draw(name)) for name in found})
        network.to(dtype)
        for module in network.modules():
            module.register_forward_hook(lambda _, __, out: greatest.append(float(out.abs().max())))
        assert part
    unet, vae = made["unet"], made["vae"]
    assert isinstance(unet, UNet)
    assert isinstance(vae, VAE)
    x, context = torch.randn(2, 4, 16, 16, dtype=dtype), torch.randn(2, 77, 64, dtype=dtype)
    added = unet.added(torch.randn(2, 32, dtype=dtype), torch.tensor([1024.0, 1024, 0, 0, 1024, 1024]))
    noise = unet(x, torch.tensor([951.0]), context, added)
    image = vae.decode(torch.randn(1, 4, 4, 4, dtype=dtype))
    assert max(greatest) < 100
    assert 0.2 < noise.float().std() < 5
    assert 0.2 < image.float().std() < 5
