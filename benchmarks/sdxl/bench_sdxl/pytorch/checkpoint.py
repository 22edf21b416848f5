"""The official safetensors files as the networks of a `Pipeline`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from bench_sdxl.config import Configs
from bench_sdxl.layout import pipe_folder, weights_file
from bench_sdxl.official import WEIGHTS
from bench_sdxl.pytorch.pipeline import Pipeline
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.runtimes.checkpoints import check_shapes
from loadgen.harness.standins.making import provide

_UNUSED = ("encoder.", "quant_conv.", "text_model.embeddings.position_ids")
"""In the files, but no image depends on them: the VAE's encoder, and a table of 0, 1, 2, ..."""
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Of the VAE's attention, in files that an early diffusers wrote."""


def read_pipeline(options: BackendOptions, configs: Configs, device: torch.device) -> Pipeline:
    """All networks on the device in the options' dtype; the VAE in float32 if that is float16 and its config says so.

    Raises InputError naming file and tensor.
    """
    pipe = pipe_folder(options.model)
    with torch.device("meta"):  # no random values are made only to be replaced
        pipeline = Pipeline(configs)
    for part in WEIGHTS:
        path = provide(weights_file(pipe, part, options.dtype), options)
        upcast = part == "vae" and options.dtype == "float16" and configs.vae.force_upcast
        state = read_state(path, torch.float32 if upcast else runtime.dtype_of(options.dtype), device)
        network = getattr(pipeline, part)
        expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        check_shapes({name: tuple(value.shape) for name, value in state.items()}, expected, str(path), "config.json")
        network.load_state_dict(state, strict=True, assign=True)
    return pipeline.eval().requires_grad_(False)


def read_state(path: Path, dtype: torch.dtype, device: torch.device) -> dict[str, torch.Tensor]:
    """The tensors that images depend on. Raises InputError naming the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    state = {}
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            for name in file.keys():  # noqa: SIM118 - a file, not a dict
                if not name.startswith(_UNUSED):
                    state[_renamed(name)] = file.get_tensor(name).to(dtype)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file ({error}). Fetch it again") from error
    return state


def _renamed(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        name = name.replace(old, new)
    return name
