"""The `synthetic` profile: SDXL base in full size with random weights, on generated captions, in the official formats.

Its speed is the full model's; its images mean nothing. Weights are written in 16 bits: any dtype is read from them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_sdxl.config import Configs
from bench_sdxl.layout import read_configs
from bench_sdxl.official import CAPTIONS, CLIP, INCEPTION, LATENTS, PIPE, STATISTICS, WEIGHTS
from bench_sdxl.standins import formats
from bench_sdxl.standins.sentences import captions, vocabulary
from bench_sdxl.tokenizer import END
from loadgen.harness.standins.making import check_space, tell, writing

SEED = 1
COUNT = 5_000
_FEATURES = 2048
CLIP_SHAPES = formats.clip_shapes(
    width=768, text_width=512, size=512, layers=12, patch=32, grid=7, context=77, pieces=49408
)
"""Of ViT-B/32."""


def prepare(folder: Path) -> None:
    """Fill `folder/data`, and `folder/model` with all but the networks' weights, which `write_weights` makes when a
    backend wants them. What is there stays; so a smaller model takes SDXL's place."""
    model, data = folder / "model", folder / "data"
    with writing(folder):
        if not (model / PIPE / "unet" / "config.json").is_file():
            formats.write_configs(model, Configs())
        configs = read_configs_of(model)
        length = configs.text.max_position_embeddings
        if not (model / PIPE / "tokenizer_2" / "vocab.json").is_file():
            pieces, merges = vocabulary(configs.text.vocab_size)
            formats.write_tokenizer(model / PIPE / "tokenizer", pieces, merges, END, length)
            formats.write_tokenizer(model / PIPE / "tokenizer_2", pieces, merges, "!", length)
        if not (data / CAPTIONS).is_file():
            formats.write_captions(data / CAPTIONS, captions(COUNT), configs.side)
        if not any((data / name).is_file() for name in LATENTS):
            (data / LATENTS[0]).parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(SEED).standard_normal(configs.latent_shape, np.float32)
            np.save(data / LATENTS[0], noise)
        if not (data / STATISTICS).is_file():
            np.savez_compressed(data / STATISTICS, mu=np.zeros(_FEATURES), sigma=np.eye(_FEATURES))


def read_configs_of(model: Path) -> Configs:
    """Of a folder that has no tokenizers yet."""
    for name in ("tokenizer", "tokenizer_2"):
        (model / PIPE / name).mkdir(exist_ok=True)
    return read_configs(model)


def write_weights(path: Path) -> None:
    """Random weights of every part that is missing beside `path`, for the config files there, and of the scorers.

    Says on stderr what takes so long. Raises InputError for a full disk.
    """
    from bench_sdxl.pytorch.shapes import inception_shapes, shapes

    pipe = path.parent.parent
    sizes = shapes(read_configs(pipe.parent))
    missing = {pipe / part / f"{stem}.safetensors": sizes[part] for part, stem in WEIGHTS.items()}
    missing = {file: found for file, found in missing.items() if not file.is_file()}
    total = 2 * sum(math.prod(shape) for found in missing.values() for shape in found.values())
    check_space(path, total)
    tell(f"making {pipe}: random weights from seed {SEED}, {total / 1e9:.2f} GB")
    began = time.monotonic()
    with writing(pipe):
        for number, (file, found) in enumerate(missing.items()):
            formats.write_safetensors(file, found, drawn(found, SEED + number), "float16")
        _write_scorers(pipe.parent, CLIP_SHAPES, inception_shapes())
    tell(f"  done in {time.monotonic() - began:.0f} s")


def _write_scorers(model: Path, clip: formats.Shapes, inception: formats.Shapes) -> None:
    for name, found, write in ((CLIP, clip, formats.write_clip), (INCEPTION, inception, formats.write_inception)):
        if not (model / name).is_file():
            (model / name).parent.mkdir(parents=True, exist_ok=True)
            draw = drawn(found, SEED)
            write(model / name, {part: draw(part) for part in found})


def drawn(shapes: formats.Shapes, seed: int) -> Callable[[str], npt.NDArray[Any]]:
    """Random tensors by name, so that activations stay near 1 through the whole depth, and finite in 16 bits.

    Layers keep the variance of what they get. The last of a residual branch gives a tenth, else a sum of hundreds of
    branches would grow with the depth: 70 Transformer blocks of the U-Net have 210 of them.
    """
    rng = np.random.default_rng(seed)

    def draw(name: str) -> npt.NDArray[Any]:
        shape = shapes[name]
        values = rng.standard_normal(shape, np.float32)
        if len(shape) < 2:  # norms and biases, and CLIP's class embedding and scale
            is_scale = name.endswith(("weight", "running_var"))
            return np.asarray(np.exp(0.03 * values) if is_scale else 0.03 * values, np.float32)
        if "embedding" in name and len(shape) == 2 and "linear" not in name:
            return np.asarray(0.5 * values, np.float32)
        gain = 0.1 if name.endswith(_BRANCH_ENDS) else 1.0
        return np.asarray(values * np.float32(gain / math.sqrt(math.prod(shape[1:]))), np.float32)

    return draw


_BRANCH_ENDS = ("conv2.weight", "to_out.0.weight", "ff.net.2.weight", "out_proj.weight", "fc2.weight", "c_proj.weight")
