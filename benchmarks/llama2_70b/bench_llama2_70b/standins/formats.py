"""Writes the official formats: a Hugging Face folder's weights, and OpenOrca as pandas pickles it.

pandas itself is not needed: what its pickle holds is written out here, and the tests read it with pandas.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_llama2_70b.official import EOS
from bench_llama2_70b.standins.generate import Example
from bench_llama2_70b.standins.prompts import prompt_ids
from bench_llama2_70b.tokenizer import Tokenizer
from loadgen.harness.runtimes import safetensors

Array: TypeAlias = "npt.NDArray[Any]"
Columns: TypeAlias = "Mapping[str, Sequence[Any]]"


def write_weights(index: Path, tensors: Mapping[str, Array], shards: int) -> None:
    """The index, and safetensors files of about the same size beside it."""
    safetensors.write(index, tensors, shards)
