"""From the tensors of a Hugging Face folder to the layers, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bench_gpt_j.config import GPTJConfig, weight_shapes
from bench_gpt_j.pytorch.model import GPTJ

Read: TypeAlias = Callable[[str], Tensor]
"""Official name -> the tensor, on any device in any format."""

_LAYER = {
    "norm.weight": (("ln_1.weight",), 0),
    "norm.bias": (("ln_1.bias",), 0),
    "into.weight": (("attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight", "mlp.fc_in.weight"), 0),
    "into.bias": (("mlp.fc_in.bias",), 0),
    "out.weight": (("attn.out_proj.weight", "mlp.fc_out.weight"), 1),
    "out.bias": (("mlp.fc_out.bias",), 0),
}
"""Ours -> the official ones in it, and the axis along which they follow each other."""
_REST = {
    "embed": "transformer.wte.weight",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "head.weight": "lm_head.weight",
    "head.bias": "lm_head.bias",
}


def sources(config: GPTJConfig) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """(our parameter, the official tensors in it, along which axis), layer after layer."""
    for ours, theirs in _REST.items():
        yield ours, (theirs,), 0
    for number in range(config.n_layer):
        for ours, (names, axis) in _LAYER.items():
            yield f"layers.{number}.{ours}", tuple(f"transformer.h.{number}.{name}" for name in names), axis


def load(config: GPTJConfig, read: Read, device: torch.device, dtype: torch.dtype) -> GPTJ:
    """A model on `device`, made tensor by tensor, so that no more than one is in memory twice."""
    with torch.device("meta"):  # no values are made only to be replaced
        model = GPTJ(config)
    for ours, names, axis in sources(config):
        found = torch.cat([read(name).to(device, dtype) for name in names], dim=axis)
        if ours.endswith("into.bias"):  # queries, keys and values have none
            found = torch.cat([found.new_zeros(3 * config.n_embd), found])
        place, _, name = ours.rpartition(".")
        setattr(model.get_submodule(place), name, nn.Parameter(found, requires_grad=False))
    return model.eval()


def official(model: GPTJ) -> dict[str, Tensor]:
    """The weights by their official names: what `load` undoes."""
    shapes, named = weight_shapes(model.config), dict(model.named_parameters())
    made: dict[str, Tensor] = {}
    for ours, names, axis in sources(model.config):
        whole = named[ours].detach()
        if ours.endswith("into.bias"):
            whole = whole[3 * model.config.n_embd :]
        made.update(zip(names, torch.split(whole, [shapes[name][axis] for name in names], dim=axis), strict=True))
    return made


def random(config: GPTJConfig, seed: int, device: torch.device) -> Read:
    """Weights drawn where they are used: matrices as a net is before training, norms of one, no bias.

    A tensor depends on the seed, its name and the kind of device.
    """
    shapes = weight_shapes(config)

    def read(name: str) -> Tensor:
        shape = shapes[name]
        if len(shape) == 1:
            return torch.full(shape, float("weight" in name), device=device)
        draw = torch.Generator(device).manual_seed(seed + 1_000_003 * list(shapes).index(name))
        values = torch.empty(shape, device=device, dtype=torch.bfloat16).normal_(generator=draw)
        return values * (0.02 if "wte" in name else shape[1] ** -0.5)

    return read
