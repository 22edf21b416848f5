"""Sizes of the networks and numbers of the scheduler, as the `config.json` files of the official folder hold them."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import read_object

C = TypeVar("C", "TextConfig", "UNetConfig", "VAEConfig", "SchedulerConfig")


@dataclass(frozen=True)
class TextConfig:
    """`text_encoder/config.json`. Defaults: CLIP ViT-L, 123 M parameters."""

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    projection_dim: int = 768
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


TEXT_2 = TextConfig(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    projection_dim=1280,
    hidden_act="gelu",
)
"""`text_encoder_2/config.json`: OpenCLIP ViT-bigG, 695 M parameters, with a projection."""


@dataclass(frozen=True)
class UNetConfig:
    """`unet/config.json`. Defaults: SDXL base 1.0, 2,567 M parameters."""

    sample_size: int = 128
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280)
    down_block_types: tuple[str, ...] = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    up_block_types: tuple[str, ...] = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    layers_per_block: int = 2
    transformer_layers_per_block: tuple[int, ...] = (1, 2, 10)
    attention_head_dim: tuple[int, ...] = (5, 10, 20)
    """Numbers of heads, whatever the official name says."""
    cross_attention_dim: int = 2048
    norm_num_groups: int = 32
    addition_time_embed_dim: int = 256
    projection_class_embeddings_input_dim: int = 2816


@dataclass(frozen=True)
class VAEConfig:
    """`vae/config.json`. Defaults: SDXL base 1.0, 84 M parameters with its encoder."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.13025
    force_upcast: bool = True

    @property
    def factor(self) -> int:
        """Pixels of a side for each number of a latent."""
        return 1 << (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class SchedulerConfig:
    """`scheduler_config.json`: the only noise schedule that `euler.py` knows."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    timestep_spacing: str = "leading"
    steps_offset: int = 1
    prediction_type: str = "epsilon"


@dataclass(frozen=True)
class Configs:
    """Of all networks of one folder, and what must agree between them."""

    text: TextConfig = TextConfig()
    text_2: TextConfig = TEXT_2
    unet: UNetConfig = UNetConfig()
    vae: VAEConfig = VAEConfig()
    scheduler: SchedulerConfig = SchedulerConfig()

    @property
    def side(self) -> int:
        """Pixels of an image's side."""
        return self.unet.sample_size * self.vae.factor

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        return 1, self.unet.in_channels, self.unet.sample_size, self.unet.sample_size

    def check(self, folder: Path) -> None:
        """Raise InputError naming the first two sizes that do not fit together."""
        text, text_2, unet = self.text, self.text_2, self.unet
        levels = len(unet.block_out_channels)
        pairs = {
            "unet cross_attention_dim = the text encoders' hidden_size together": (
                unet.cross_attention_dim,
                text.hidden_size + text_2.hidden_size,
            ),
            "unet projection_class_embeddings_input_dim = projection_dim + 6 addition_time_embed_dim": (
                unet.projection_class_embeddings_input_dim,
                text_2.projection_dim + 6 * unet.addition_time_embed_dim,
            ),
            "both text encoders' max_position_embeddings": (
                text.max_position_embeddings,
                text_2.max_position_embeddings,
            ),
            "unet in_channels = vae latent_channels": (unet.in_channels, self.vae.latent_channels),
            "unet down_block_types, one for each of block_out_channels": (len(unet.down_block_types), levels),
            "unet up_block_types, one for each of block_out_channels": (len(unet.up_block_types), levels),
            "unet attention_head_dim, one for each of block_out_channels": (len(unet.attention_head_dim), levels),
            "unet transformer_layers_per_block, one for each": (len(unet.transformer_layers_per_block), levels),
        }
        for what, (left, right) in pairs.items():
            if left != right:
                raise InputError(f"{folder}: {what}: {left} is not {right}; use the config.json files of one model")


def read_config(path: Path, kind: type[C]) -> C:
    """The fields of `kind` from a JSON file; other keys are passed over. Raises InputError naming file and key."""
    document = read_object(path)
    hints = get_type_hints(kind)
    return kind(**{field.name: _value(document, field.name, hints[field.name], path) for field in fields(kind)})


def _value(document: Mapping[str, Any], key: str, hint: Any, path: Path) -> Any:
    found = document.get(key)
    if isinstance(hint, types.GenericAlias):  # tuple[int, ...]
        items = found if isinstance(found, list) else []
        if items and all(_fits(item, get_args(hint)[0]) for item in items):
            return tuple(items)
    elif _fits(found, hint):
        return hint(found)
    wanted = {int: "a whole number from 0 on", float: "a number", str: "a text", bool: "true or false"}
    expected = wanted.get(hint, f"a list, each {wanted[get_args(hint)[0]]}" if get_args(hint) else "")
    raise InputError(f"{path}: {key!r} is {found!r}, expected {expected}: fetch the file again")


def _fits(value: Any, kind: type) -> bool:
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind and not (isinstance(value, int) and value < 0)


def write_config(path: Path, config: Any, **more: Any) -> None:
    """A config as the official JSON has it. more: keys that only other readers of the file want."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**more, **asdict(config)}, indent=2) + "\n")
