"""The `mini` profile: its sizes, its trained weights, and its files in the official formats."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_sdxl.config import Configs, TextConfig, UNetConfig, VAEConfig
from bench_sdxl.dataset import Statistics
from bench_sdxl.scorers.frechet import Moments
from bench_sdxl.standins.formats import write_tokenizer
from bench_sdxl.standins.generate import COUNTS, vocabulary
from bench_sdxl.tokenizer import END

WEIGHTS = Path(__file__).with_name("weights.npz")
LENGTH = 20
"""Tokens of a prompt: the negative prompt has 19 with both ends."""
_PIECES = len(vocabulary()[0])
_TEXT: dict[str, Any] = {"vocab_size": _PIECES, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
_TEXT |= {"max_position_embeddings": LENGTH, "projection_dim": 32}
CONFIGS = Configs(
    text=TextConfig(**_TEXT, num_hidden_layers=2),
    text_2=TextConfig(**_TEXT, num_hidden_layers=3, hidden_act="gelu"),
    unet=UNetConfig(
        sample_size=8,
        block_out_channels=(24, 48),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(3, 6),
        cross_attention_dim=64,
        norm_num_groups=8,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
    ),
    vae=VAEConfig(block_out_channels=(8, 16, 24), layers_per_block=1, norm_num_groups=4),
)
CLIP_WIDTH = 32
_LAYERS = {"visual.transformer": 2, "transformer": 2}
_PATCH, _GRID = 4, 8
FILES = ("text_encoder", "text_encoder_2", "unet", "vae", "clip", "inception")
"""Networks, each one row of 16-bit numbers in the committed file."""


def clip_shapes() -> dict[str, tuple[int, ...]]:
    """Of the miniature's CLIP: two layers each for drawings of 32 x 32 pixels and for sentences."""
    w = CLIP_WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (LENGTH, w),
        "text_projection": (w, w),
        "logit_scale": (),
        "visual.class_embedding": (w,),
        "visual.positional_embedding": (_GRID * _GRID + 1, w),
        "visual.proj": (w, w),
        "visual.conv1.weight": (w, 3, _PATCH, _PATCH),
        "token_embedding.weight": (_PIECES, w),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        shapes |= {f"{norm}.weight": (w,), f"{norm}.bias": (w,)}
    for part, count in _LAYERS.items():
        for number in range(count):
            shapes |= {f"{part}.resblocks.{number}.{name}": shape for name, shape in _block(w).items()}
    return shapes


def _block(w: int) -> dict[str, tuple[int, ...]]:
    return {
        "attn.in_proj_weight": (3 * w, w),
        "attn.in_proj_bias": (3 * w,),
        "attn.out_proj.weight": (w, w),
        "attn.out_proj.bias": (w,),
        "ln_1.weight": (w,),
        "ln_1.bias": (w,),
        "mlp.c_fc.weight": (4 * w, w),
        "mlp.c_fc.bias": (4 * w,),
        "mlp.c_proj.weight": (w, 4 * w),
        "mlp.c_proj.bias": (w,),
        "ln_2.weight": (w,),
        "ln_2.bias": (w,),
    }


def write_tokenizers(pipe: Path) -> None:
    """Both folders, which differ in their padding as the official ones do."""
    pieces, merges = vocabulary()
    write_tokenizer(pipe / "tokenizer", pieces, merges, pad=END, length=LENGTH)
    write_tokenizer(pipe / "tokenizer_2", pieces, merges, pad="!", length=LENGTH)


def features_of(network: Any, images: Any) -> Statistics:
    """Mean and covariance of what the feature network sees in uint8 drawings [n, H, W, 3], a torch tensor."""
    import torch

    with torch.inference_mode():
        parts = [network(part.permute(0, 3, 1, 2).float() / 255).cpu().numpy() for part in images.split(256)]
    moments = Moments(parts[0].shape[1])
    for part in parts:
        moments.add(part)
    return Statistics(moments.mean, moments.covariance)


def pack(pipeline: Any, clip: Any, inception: Any, statistics: Statistics) -> dict[str, npt.NDArray[Any]]:
    """What is committed: of each network one row of its tensors in order, in 16 bits, and the statistics."""
    networks = {name: getattr(pipeline, name) for name in FILES[:4]} | {"clip": clip, "inception": inception}
    rows = {
        name: np.concatenate([value.detach().cpu().numpy().ravel() for value in _stored(network).values()])
        for name, network in networks.items()
    }
    upper = statistics.covariance[np.triu_indices(len(statistics.mean))]
    return {
        **{name: row.astype(np.float16) for name, row in rows.items()},
        "mu": statistics.mean.astype(np.float32),
        "sigma": upper.astype(np.float32),
    }


def _stored(network: Any) -> dict[str, Any]:
    return {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def read_weights(path: Path = WEIGHTS) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """The committed tensors of each network, by their official names."""
    import torch

    from bench_sdxl.pytorch.pipeline import Pipeline
    from bench_sdxl.scorers.clip import CLIP
    from bench_sdxl.scorers.inception import Inception

    with torch.device("meta"):
        pipeline = Pipeline(CONFIGS, encodes=True)
        networks = {"clip": CLIP(clip_shapes()), "inception": Inception(2, sum(COUNTS))}
    networks |= {name: getattr(pipeline, name) for name in FILES[:4]}
    with np.load(path) as stored:
        return {name: _cut(stored[name], _stored(network)) for name, network in networks.items()}


def _cut(row: npt.NDArray[Any], like: dict[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    ends = np.cumsum([value.numel() for value in like.values()])
    parts = np.split(row.astype(np.float32), ends[:-1])
    return {name: part.reshape(tuple(like[name].shape)) for name, part in zip(like, parts, strict=True)}


def read_committed_statistics(path: Path = WEIGHTS) -> Statistics:
    """Of real drawings."""
    with np.load(path) as stored:
        mean, upper = stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64)
    covariance = np.zeros((len(mean), len(mean)))
    covariance[np.triu_indices(len(mean))] = upper
    return Statistics(mean, covariance + np.triu(covariance, 1).T)
