"""Writes golden/torchvision.json: what torchvision itself makes of images that follow from a seed.

`pip install torchvision==0.28.0`, then `python tests/make_golden.py`. The tests need only the file: they see that our
preparation, which does without torchvision, gives the same to the bit.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SHAPES = [(375, 500), (500, 375), (333, 500), (256, 256), (1200, 700)]
SHAPES += [(225, 231), (400, 399), (60, 90), (3, 40), (1, 1)]
FILE = Path(__file__).with_name("golden") / "torchvision.json"


def picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """[height, width, 3]: patches of colour with grain, from integers alone."""
    rng = np.random.default_rng([height, width])
    patches = rng.integers(0, 200, (-(-height // 8), -(-width // 8), 3)).repeat(8, axis=0).repeat(8, axis=1)
    return (patches[:height, :width] + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def digest(values: npt.NDArray[Any]) -> str:
    """Of float32 [224, 224, 3]."""
    assert (values.shape, values.dtype) == ((224, 224, 3), np.float32)
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def main() -> None:
    """By the reference's calls, in its order."""
    import torchvision
    from PIL import Image
    from torchvision.transforms import functional as F

    golden = {"torchvision": torchvision.__version__.split("+")[0]}
    for shape in SHAPES:
        image = F.center_crop(F.resize(Image.fromarray(picture(*shape)), 256, F.InterpolationMode.BILINEAR), 224)
        values = F.normalize(F.to_tensor(image), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        golden[str(shape)] = digest(values.permute(1, 2, 0).numpy())
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
