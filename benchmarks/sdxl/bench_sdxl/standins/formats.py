"""Writes the official files of a model folder, and of the scorers, from sizes and tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_sdxl.config import Configs, write_config
from bench_sdxl.official import PIPE, SCHEDULERS
from bench_sdxl.tokenizer import BEGIN, END
from loadgen.harness.files import whole_file

Shapes: TypeAlias = "Mapping[str, tuple[int, ...]]"
Tensors: TypeAlias = "Mapping[str, npt.NDArray[Any]]"
_KINDS = {"float32": "F32", "float16": "F16"}


def write_safetensors(path: Path, shapes: Shapes, tensor: Callable[[str], npt.NDArray[Any]], dtype: str) -> None:
    """One tensor after another, as `tensor(name)` gives them, so that no more than one is in memory.

    The format: the header's length in 8 bytes, the header in JSON, the numbers in its order.
    """
    item = np.dtype(dtype).itemsize
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + item * math.prod(shape)
        header[name] = {"dtype": _KINDS[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            values = np.ascontiguousarray(tensor(name), dtype)
            assert values.shape == shape, f"{name}: {values.shape}, {shape} expected"
            file.write(values.tobytes())


def write_part(path: Path, tensors: Tensors, dtype: str = "float32") -> None:
    """The weights file of one part, from tensors that are in memory."""
    write_safetensors(path, {name: value.shape for name, value in tensors.items()}, tensors.__getitem__, dtype)


def write_configs(model: Path, configs: Configs) -> None:
    """Every JSON of the official folder but the tokenizers', with what diffusers and transformers want to know."""
    pipe = model / PIPE
    for name, config, projects in (
        ("text_encoder", configs.text, False),
        ("text_encoder_2", configs.text_2, True),
    ):
        kind = "CLIPTextModelWithProjection" if projects else "CLIPTextModel"
        more = {"architectures": [kind], "model_type": "clip_text_model", "eos_token_id": 2, "bos_token_id": 0}
        write_config(pipe / name / "config.json", config, **more)
    write_config(
        pipe / "unet" / "config.json",
        configs.unet,
        _class_name="UNet2DConditionModel",
        addition_embed_type="text_time",
        use_linear_projection=True,
    )
    levels = len(configs.vae.block_out_channels)
    write_config(
        pipe / "vae" / "config.json",
        configs.vae,
        _class_name="AutoencoderKL",
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        sample_size=configs.side,
    )
    for folder in (model / SCHEDULERS[0], pipe / "scheduler"):
        write_config(folder / "scheduler_config.json", configs.scheduler, _class_name="EulerDiscreteScheduler")
    (pipe / "model_index.json").write_text(json.dumps(_INDEX, indent=2) + "\n")


_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_tokenizer(folder: Path, vocabulary: list[str], merges: list[tuple[str, str]], pad: str, length: int) -> None:
    """The four official files of a tokenizer's folder. vocabulary: pieces in the order of their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": pad}
    config = {**special, "model_max_length": length, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def clip_shapes(
    *, width: int, text_width: int, size: int, layers: int, patch: int, grid: int, context: int, pieces: int
) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of OpenAI's file. size: of the space that images and texts share."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (context, text_width),
        "text_projection": (text_width, size),
        "logit_scale": (),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (grid * grid + 1, width),
        "visual.proj": (width, size),
        "visual.conv1.weight": (width, 3, patch, patch),
        "token_embedding.weight": (pieces, text_width),
    }
    for norm, inner in (("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text_width)):
        shapes |= {f"{norm}.weight": (inner,), f"{norm}.bias": (inner,)}
    for part, inner in (("visual.transformer", width), ("transformer", text_width)):
        for number in range(layers):
            shapes |= {f"{part}.resblocks.{number}.{name}": shape for name, shape in _block(inner).items()}
    return shapes


def _block(width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
    }
    for name, outputs, inputs in (
        ("attn.out_proj", width, width),
        ("mlp.c_fc", 4 * width, width),
        ("mlp.c_proj", width, 4 * width),
    ):
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    for norm in ("ln_1", "ln_2"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return shapes


def write_clip(path: Path, tensors: Tensors) -> None:
    """OpenAI's form: a TorchScript archive with the tensors in 16 bits and three numbers beside them."""
    import torch
    from torch import nn

    root = nn.Module()
    for name, value in tensors.items():
        *parents, last = name.split(".")
        place = root
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, nn.Module())
            place = getattr(place, parent)
        tensor = torch.from_numpy(np.array(value, np.float16))
        place.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    grid = round((len(tensors["visual.positional_embedding"]) - 1) ** 0.5)
    numbers = {
        "input_resolution": grid * tensors["visual.conv1.weight"].shape[2],
        "context_length": len(tensors["positional_embedding"]),
        "vocab_size": len(tensors["token_embedding.weight"]),
    }
    for name, number in numbers.items():
        root.register_buffer(name, torch.tensor(number))
    with whole_file(path) as part:
        torch.jit.save(torch.jit.script(root), str(part))


def write_inception(path: Path, tensors: Tensors) -> None:
    """A PyTorch state dict in float32."""
    import torch

    state = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in tensors.items()}
    with whole_file(path) as part:
        torch.save(state, part)


def write_captions(path: Path, captions: list[str], side: int) -> None:
    """The official table, the image's columns made up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["id\timage_id\tcaption\theight\twidth\tfile_name\tcoco_url"]
    for number, caption in enumerate(captions):
        name = f"COCO_val2014_{number:012}.jpg"
        rows.append(f"{number}\t{number}\t{caption}\t{side}\t{side}\t{name}\thttp://images.example/{name}")
    path.write_text("\n".join(rows) + "\n")
