"""CLIP (Radford et al. 2021) as OpenAI published it: ViT-B/32, of the names and sizes in `ViT-B-32.pt`.

Images come in by the rule of its own preprocessing: bicubic to the network's side by Pillow, then normalised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from loadgen.contracts import InputError
from loadgen.harness.runtimes import torch as runtime

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green, blue from 0 to 1: OpenAI's."""
_HEAD = 64  # width of an attention head in every published CLIP
_SIZES = ("input_resolution", "context_length", "vocab_size")  # numbers in the file, which the tensors say as well


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // _HEAD)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        together = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        parts = together.unflatten(-1, (3, self.heads, -1))  # type: ignore[no-untyped-call]
        q, k, v = (part.transpose(1, 2) for part in parts.unbind(2))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.c_fc(x)
        out: Tensor = self.c_proj(inner * torch.sigmoid(1.702 * inner))
        return out


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = Attention(width)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.resblocks = nn.ModuleList(Block(width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x, self.causal)
        return x


class Vision(nn.Module):
    def __init__(self, width: int, layers: int, patch: int, grid: int, size: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(grid * grid + 1, width))
        self.proj = nn.Parameter(torch.empty(width, size))
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, causal=False)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(images), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        out: Tensor = self.ln_post(self.transformer(x)[:, 0]) @ self.proj
        return out


class CLIP(nn.Module):
    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """shapes: of the weights, by name; they say all sizes. Raises KeyError for a name that is missing."""
        super().__init__()
        width, _, patch, _ = shapes["visual.conv1.weight"]
        self.vocabulary, text_width = shapes["token_embedding.weight"]
        self.context = shapes["positional_embedding"][0]
        size = shapes["text_projection"][1]
        grid = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
        self.side = grid * patch
        self.visual = Vision(width, _count(shapes, "visual.transformer.resblocks."), patch, grid, size)
        self.transformer = Transformer(text_width, _count(shapes, "transformer.resblocks."), causal=True)
        self.token_embedding = nn.Embedding(self.vocabulary, text_width)
        self.positional_embedding = nn.Parameter(torch.empty(self.context, text_width))
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(torch.empty(text_width, size))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def encode_images(self, images: Tensor) -> Tensor:
        """Of unit length [n, size], from normalised images [n, 3, side, side]."""
        return F.normalize(self.visual(images), dim=-1)

    def encode_texts(self, ids: Tensor) -> Tensor:
        """Of unit length [n, size], from token ids [n, context]; the greatest of a row is its end of text."""
        x = self.transformer(self.token_embedding(ids) + self.positional_embedding)
        ends = x[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
        return F.normalize(self.ln_final(ends) @ self.text_projection, dim=-1)


def _count(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})


def normalised(images: Tensor) -> Tensor:
    """Of uint8 [n, H, W, 3], what the network takes."""
    mean, deviation = (torch.tensor(values, device=images.device) for values in (MEAN, DEVIATION))
    return ((images.float() / 255 - mean) / deviation).permute(0, 3, 1, 2)


def resized(images: Sequence[npt.NDArray[np.uint8]], side: int) -> Tensor:
    """uint8 [n, side, side, 3] of square images: Pillow's bicubic, which widens its kernel when it shrinks."""
    small = [Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC) for image in images]
    return torch.from_numpy(np.stack([np.asarray(image) for image in small]))


def read_clip(path: Path, device: str) -> CLIP:
    """The network of OpenAI's file, in float32 on a device. Raises InputError naming the file and what it lacks."""
    state = {name: value.float() for name, value in _read(path).items() if name not in _SIZES}
    try:
        with torch.device("meta"):
            model = CLIP({name: tuple(value.shape) for name, value in state.items()})
        model.load_state_dict(state, strict=True, assign=True)
    except (KeyError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path}: no CLIP of OpenAI's form ({first}): fetch it again") from error
    return model.eval().requires_grad_(False).to(device)


def _read(path: Path) -> dict[str, Tensor]:
    """OpenAI's file is a TorchScript archive, of which only the tensors are used; a state dict is taken too."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. Get it by the command fetch")
    try:
        return dict(torch.jit.load(str(path), map_location="cpu").state_dict())  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError):
        return runtime.read_state_dict(path)
