"""What the official files are called, the alphabet, and the names in the checkpoint. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

V = TypeVar("V")

CHECKPOINT = "rnnt.pt"
"""As the official app calls it; it is published as DistributedDataParallel_1576581068.9962234-epoch-100.pt."""
MANIFEST = "dev-clean-wav.json"

ALPHABET = " abcdefghijklmnopqrstuvwxyz'"
"""A label is a position in it; the blank comes after the last."""
MAX_SYMBOLS = 30
"""Labels that one encoder frame may bring, then decoding goes on to the next."""

FILTERS = "audio_preprocessor.featurizer.fb"
WINDOW = "audio_preprocessor.featurizer.window"
"""Buffers of the official checkpoint that follow from constants (see `features`) and are not read."""


def own_names(state: Mapping[str, V]) -> dict[str, V]:
    """The official checkpoint's tensors by the names of `model.Rnnt`, without the featurizer's buffers."""
    kept = {name: value for name, value in state.items() if name not in (FILTERS, WINDOW)}
    return {name.replace("joint_net.", "joint.net."): value for name, value in kept.items()}


def official_names(state: Mapping[str, V]) -> dict[str, V]:
    """The way back, for those who write a checkpoint."""
    return {name.replace("joint.net.", "joint_net."): value for name, value in state.items()}
