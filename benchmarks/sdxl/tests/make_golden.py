"""Writes golden/scorers.json: what open_clip's ViT-B/32 and pytorch-fid's Inception-v3 make of weights and images that
follow from seeds.

`pip install torchvision==0.29.1 open-clip-torch==3.3.0 pytorch-fid==0.3.0 scipy`, then `python tests/make_golden.py`.
The tests need only the file: they see that our forward passes, image preparation and FID, which do without the three,
give the same. It is full size: 151 M and 24 M weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_sdxl.standins.synthetic import CLIP_SHAPES, drawn

FILE = Path(__file__).with_name("golden") / "scorers.json"
CAPTIONS = ("A city at night with people walking around.", "It's a dog &amp; 2 cats: \u201cwell\u201d!")
SIDES = (1024, 1024, 40)
SHOWN = 24
"""Numbers of each result that are kept."""


def image(number: int) -> npt.NDArray[np.uint8]:
    """Smooth colours with noise, [side, side, 3], sides as SIDES."""
    rng = np.random.default_rng([11, number])
    side = SIDES[number]
    coarse = rng.integers(0, 256, (8, 8, 3))
    smooth = np.kron(coarse, np.ones((side // 8, side // 8, 1)))
    return np.clip(smooth + rng.normal(0, 30, smooth.shape), 0, 255).astype(np.uint8)


def images() -> list[npt.NDArray[np.uint8]]:
    return [image(number) for number in range(len(SIDES))]


def clip_weights() -> dict[str, npt.NDArray[Any]]:
    draw = drawn(CLIP_SHAPES, 5)
    return {name: draw(name) for name in CLIP_SHAPES}


def inception_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, npt.NDArray[Any]]:
    """By the order of the names, so that any order of modules draws the same."""
    ordered = dict(sorted(shapes.items()))
    draw = drawn(ordered, 6)
    return {name: draw(name) for name in ordered}


def features(count: int, size: int, seed: int) -> npt.NDArray[np.float64]:
    """Correlated, so that a covariance of too few is far from full rank."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (count, size)) @ rng.normal(0, 0.3, (size, size)) + rng.normal(0, 0.5, size)


def of_open_clip() -> dict[str, Any]:
    import open_clip
    import torch
    from PIL import Image

    model, _, prepare = open_clip.create_model_and_transforms("ViT-B-32-quickgelu", pretrained=None)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in clip_weights().items()}, strict=False)
    ids = open_clip.get_tokenizer("ViT-B-32-quickgelu")(list(CAPTIONS))
    pixels = torch.stack([prepare(Image.fromarray(one)) for one in images()])
    with torch.no_grad():
        seen, read = model.eval().encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
    return {
        "ids": ids.tolist(),
        "pixels": pixels[:, :, ::37, ::41].flatten()[:200].tolist(),
        "seen": seen[:, :SHOWN].tolist(),
        "read": read[:, :SHOWN].tolist(),
        "similarity": (100 * seen @ read.T).tolist(),
    }


def of_pytorch_fid() -> dict[str, Any]:
    import torch
    from pytorch_fid import fid_score, inception

    inception.load_state_dict_from_url = lambda *_, **__: _weights_of(inception)
    network = inception.InceptionV3([3]).eval()
    found = []
    with torch.no_grad():
        for one in images():
            pixels = torch.from_numpy(one).permute(2, 0, 1)[None].float() / 255
            found.append(network(pixels)[0].flatten().numpy())
    few, many = features(40, 64, 1), features(500, 64, 2)
    moments = [(part.mean(axis=0), np.cov(part, rowvar=False)) for part in (few, many)]
    return {
        "features": [one[:: len(one) // SHOWN][:SHOWN].tolist() for one in found],
        "means": [float(one.mean()) for one in found],
        "fid": float(fid_score.calculate_frechet_distance(*moments[0], *moments[1])),
    }


def _weights_of(inception: Any) -> dict[str, Any]:
    import torch

    plain = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    shapes = {name: tuple(value.shape) for name, value in plain.state_dict().items() if "num_batches" not in name}
    weights = {name: torch.from_numpy(value) for name, value in inception_weights(shapes).items()}
    counters = {name: value for name, value in plain.state_dict().items() if "num_batches" in name}
    return {**weights, **counters}


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps({"clip": of_open_clip(), "inception": of_pytorch_fid()}, indent=1) + "\n")
    print(f"written: {FILE}")
