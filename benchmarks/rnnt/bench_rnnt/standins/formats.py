"""Writes the official checkpoint from numpy tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_rnnt.config import config_of
from bench_rnnt.features import hann, mel_filters
from bench_rnnt.official import CHECKPOINT, FILTERS, WINDOW, official_names
from loadgen.harness.standins.making import Writer

Tensors: TypeAlias = "Mapping[str, npt.NDArray[Any]]"
"""By the names of `config.weight_shapes`."""


def write_checkpoint(path: Path, tensors: Tensors) -> None:
    """`rnnt.pt`: a training's checkpoint, with the float32 state dict and the featurizer's buffers in it.

    Needs torch. Raises InputError as `config_of`.
    """
    import torch

    config_of({name: value.shape for name, value in tensors.items()}, "tensors to write")
    named = {**official_names(tensors), FILTERS: mel_filters()[None], WINDOW: hann()}
    # torch takes arrays that can be written only; others, and those of another type, are copied
    arrays = {name: np.require(value, np.float32, ["C", "W"]) for name, value in named.items()}
    torch.save({"state_dict": {name: torch.from_numpy(array) for name, array in arrays.items()}, "epoch": 100}, path)


WRITERS: Mapping[str, Writer[[Tensors]]] = MappingProxyType({CHECKPOINT: Writer("torch", write_checkpoint)})
"""File -> how it is written."""
