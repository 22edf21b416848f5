"""The `mini` profile: its sizes, its trained weights, and its files in the official formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_sdxl.config import Configs, TextConfig, UNetConfig, VAEConfig
from bench_sdxl.dataset import Statistics
from bench_sdxl.official import CAPTIONS, CLIP, INCEPTION, LATENTS, PIPE, STATISTICS
from bench_sdxl.official import WEIGHTS as PARTS
from bench_sdxl.scorers.frechet import Moments
from bench_sdxl.standins import SIZES
from bench_sdxl.standins.formats import (
    clip_shapes,
    write_captions,
    write_clip,
    write_configs,
    write_inception,
    write_part,
    write_tokenizer,
)
from bench_sdxl.standins.generate import COUNTS, caption, chosen, latents, vocabulary
from bench_sdxl.tokenizer import END
from loadgen.harness.standins.making import made_once, version_of

WEIGHTS = Path(__file__).with_name("weights.npz")
_SOURCES = [WEIGHTS, *(WEIGHTS.with_name(f"{name}.py") for name in ("generate", "formats", "miniature"))]
"""All that the files follow from."""
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


def prepare(folder: Path) -> None:
    """Fill `folder/data` and `folder/model`; at once if an earlier call of this version did. Needs PyTorch."""
    made_once(folder, version_of(*_SOURCES), _make)


def _make(folder: Path) -> None:
    model, data = folder / "model", folder / "data"
    weights = read_weights()
    write_configs(model, CONFIGS)
    write_tokenizers(model / PIPE)
    for part, stem in PARTS.items():
        write_part(model / PIPE / part / f"{stem}.safetensors", weights[part])
    (model / CLIP).parent.mkdir(parents=True, exist_ok=True)
    write_clip(model / CLIP, weights["clip"])
    write_inception(model / INCEPTION, weights["inception"])
    write_captions(data / CAPTIONS, [caption(spec) for spec in chosen(SIZES["count"])], CONFIGS.side)
    (data / LATENTS[0]).parent.mkdir(parents=True, exist_ok=True)
    np.save(data / LATENTS[0], latents())
    statistics = read_committed_statistics()
    np.savez(data / STATISTICS, mu=statistics.mean, sigma=statistics.covariance)


FILES = ("text_encoder", "text_encoder_2", "unet", "vae", "clip", "inception")
"""Networks, each one row of 16-bit numbers in the committed file."""
CLIP_SHAPES = clip_shapes(width=32, text_width=32, size=32, layers=2, patch=4, grid=8, context=LENGTH, pieces=_PIECES)
"""Two layers each for drawings of 32 x 32 pixels and for sentences."""


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
        networks = {"clip": CLIP(CLIP_SHAPES), "inception": Inception(2, sum(COUNTS))}
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
