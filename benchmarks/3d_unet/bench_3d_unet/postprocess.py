"""An answer on the wire: a label of each voxel, uint8 [1, 1, D, H, W], so as many bytes as voxels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench_3d_unet.dataset import Dataset
from bench_3d_unet.official import CLASSES
from bench_3d_unet.preprocess import Label
from bench_3d_unet.sliding_window import F32
from loadgen.contracts import I64, Answers, InputError


def check_outputs(path: Path, logits: F32, window: int) -> None:
    """Raise InputError naming the file if a model does not give one window a logit of each class and voxel."""
    wanted = [1, len(CLASSES), *[window] * 3]
    if list(logits.shape) != wanted:
        raise InputError(
            f"{path}: gives {list(logits.shape)} for one window, expected {wanted} ({', '.join(CLASSES)}): "
            "fetch the official file again, for KiTS19"
        )


def encode(outputs: Sequence[Label], indices: I64, dataset: Dataset) -> Answers:
    """From labels [D, H, W] of each volume."""
    if len(outputs) == 1:
        return Answers(np.ascontiguousarray(outputs[0], np.uint8), (0, outputs[0].size))
    offsets = np.cumsum([0, *(labels.size for labels in outputs)])
    return Answers(np.concatenate([labels.reshape(-1) for labels in outputs], dtype=np.uint8), offsets)


def decode(data: bytes) -> Label:
    """uint8 [D * H * W]: the answer does not say its shape, which is its sample's."""
    return np.frombuffer(data, np.uint8)
