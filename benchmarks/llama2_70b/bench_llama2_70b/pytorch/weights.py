"""From the tensors of a Hugging Face folder to a rank's share of the layers, and back.

What is multiplied with the same input lies in one matrix here: queries, keys and values; gate and up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bench_llama2_70b.config import LlamaConfig, weight_shapes
from bench_llama2_70b.pytorch.model import Linear, Llama, rounded8
from bench_llama2_70b.pytorch.parallel import ALONE, Share

Read: TypeAlias = Callable[[str, int, Share], Tensor]
"""(official name, axis that the ranks share, which share) -> the tensor's share, on any device in any format."""

_ROWS, _COLUMNS, _WHOLE = 0, 1, 2
_LAYER = {
    "before_attention": (("input_layernorm",), _WHOLE),
    "attention.qkv": (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), _ROWS),
    "attention.out": (("self_attn.o_proj",), _COLUMNS),
    "before_mlp": (("post_attention_layernorm",), _WHOLE),
    "mlp.gate_up": (("mlp.gate_proj", "mlp.up_proj"), _ROWS),
    "mlp.down": (("mlp.down_proj",), _COLUMNS),
}
"""Ours -> the official ones, and what of them a rank has."""


def sources(config: LlamaConfig) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """(our parameter, the official tensors in it, what a rank has of them), layer after layer."""
    yield "embed", ("model.embed_tokens.weight",), _WHOLE
    for number in range(config.num_hidden_layers):
        for ours, (theirs, axis) in _LAYER.items():
            names = tuple(f"model.layers.{number}.{name}.weight" for name in theirs)
            yield f"layers.{number}.{ours}.weight", names, axis
    yield "norm.weight", ("model.norm.weight",), _WHOLE
    yield "head.weight", ("lm_head.weight",), _WHOLE


def load(config: LlamaConfig, read: Read, share: Share, device: torch.device, dtype: torch.dtype) -> Llama:
    """A model on `device`, made tensor by tensor, so that no more than one is in memory twice.

    dtype float8_e4m3fn: the layers' matrices in 8 bits with a scale of each output, the rest in bfloat16.
    """
    rest = torch.bfloat16 if dtype is torch.float8_e4m3fn else dtype
    with torch.device("meta"):  # no values are made only to be replaced
        model = Llama(config, share)
    for ours, names, axis in sources(config):
        along, part = (0, ALONE) if axis == _WHOLE else (axis, share)
        found = torch.cat([read(name, along, part).to(device, rest) for name in names])
        place, _, name = ours.rpartition(".")
        module: nn.Module = model.get_submodule(place)
        if dtype is torch.float8_e4m3fn and isinstance(module, Linear) and place != "head":
            found, scale = rounded8(found)
            module.scale = nn.Parameter(scale, requires_grad=False)
        setattr(module, name, nn.Parameter(found, requires_grad=False))
    return model.eval()


def official(model: Llama) -> dict[str, Tensor]:
    """The weights of a whole model by their official names: what `load` undoes."""
    shapes, named = weight_shapes(model.config), dict(model.named_parameters())
    made: dict[str, Tensor] = {}
    for ours, names, _ in sources(model.config):
        parts = torch.split(named[ours].detach(), [shapes[name][0] for name in names])
        made.update(zip(names, parts, strict=True))
    return made


def random(config: LlamaConfig, seed: int, device: torch.device) -> Read:
    """Weights drawn where they are used: layers as a net is before training, norms of one.

    A tensor depends on the seed, its name and the kind of device; a share of it also on the rank.
    """
    shapes = weight_shapes(config)

    def read(name: str, axis: int, share: Share) -> Tensor:
        shape = list(shapes[name])
        if len(shape) == 1:
            return torch.ones(shape, device=device)
        shape[axis] //= share.count
        number = list(shapes).index(name)
        draw = torch.Generator(device).manual_seed(seed + 1_000_003 * number + share.rank)
        values = torch.empty(shape, device=device, dtype=torch.bfloat16).normal_(generator=draw)
        return values * (0.02 if "embed" in name else shapes[name][1] ** -0.5)

    return read
