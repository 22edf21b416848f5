"""The official model folder: where each part lies in MLCommons' form or Hugging Face's, and the sizes in it."""

from __future__ import annotations

from pathlib import Path

from bench_sdxl.config import Configs, SchedulerConfig, TextConfig, UNetConfig, VAEConfig, read_config
from bench_sdxl.official import PIPE, SCHEDULERS, WEIGHTS
from bench_sdxl.tokenizer import Tokenizer
from loadgen.contracts import InputError


def pipe_folder(model: Path) -> Path:
    """The folder with `unet/`, `vae/` and so on: `checkpoint_pipe` in `model`, or `model` itself.

    Raises InputError that lists the parts which it lacks.
    """
    pipe = model / PIPE if (model / PIPE).is_dir() or not (model / "unet").is_dir() else model
    missing = [name for name in (*WEIGHTS, "tokenizer", "tokenizer_2") if not (pipe / name).is_dir()]
    if missing:
        raise InputError(f"{pipe}: the model lacks {', '.join(missing)}: put the whole official folder there")
    return pipe


def read_configs(model: Path) -> Configs:
    """The sizes of every part. Raises InputError that names the file, the key, or the sizes that do not fit."""
    pipe = pipe_folder(model)
    schedulers = [model / folder / "scheduler_config.json" for folder in SCHEDULERS]
    scheduler = next((path for path in schedulers if path.is_file()), schedulers[0])
    configs = Configs(
        text=read_config(pipe / "text_encoder" / "config.json", TextConfig),
        text_2=read_config(pipe / "text_encoder_2" / "config.json", TextConfig),
        unet=read_config(pipe / "unet" / "config.json", UNetConfig),
        vae=read_config(pipe / "vae" / "config.json", VAEConfig),
        scheduler=read_config(scheduler, SchedulerConfig),
    )
    configs.check(pipe)
    return configs


def read_tokenizers(model: Path) -> tuple[Tokenizer, Tokenizer]:
    """Of both text encoders. Raises InputError that names the file, also where it has words that its encoder lacks."""
    pipe = pipe_folder(model)
    one, two = (_read_tokenizer(pipe, number) for number in ("", "_2"))
    return one, two


def _read_tokenizer(pipe: Path, number: str) -> Tokenizer:
    tokenizer, config = Tokenizer(pipe / f"tokenizer{number}"), pipe / f"text_encoder{number}" / "config.json"
    knows, words = read_config(config, TextConfig).vocab_size, max(tokenizer.ids.values()) + 1
    if knows < words:
        raise InputError(
            f"{config}: the encoder knows {knows} pieces, its tokenizer{number} has {words}: use the files of one model"
        )
    return tokenizer


def weights_file(pipe: Path, part: str, dtype: str) -> Path:
    """The weights of one part: `*.fp16.safetensors` first for float16, else the plain name first; either will do.

    Where neither is there, the first.
    """
    stem = WEIGHTS[part]
    names = [f"{stem}.safetensors", f"{stem}.fp16.safetensors"]
    paths = [pipe / part / name for name in (reversed(names) if dtype == "float16" else names)]
    return next((path for path in paths if path.is_file()), paths[0])
