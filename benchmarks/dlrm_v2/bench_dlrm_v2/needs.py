"""Memory that the full-size model takes, by arithmetic. Imports nothing heavy: it is asked before a run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from bench_dlrm_v2.official import ROWS

CAP = 300_000
"""Rows of a table at most in the profile `capped`."""
_DIM = 128
_ROW: Mapping[str, int] = MappingProxyType(
    {"float32": 4 * _DIM, "bfloat16": 4 * _DIM, "float16": 2 * _DIM, "int8": _DIM + 4}
)
"""Bytes by `--dtype`; a row of 8 bits has a scale."""
_PAIR = 4 * 3456 * 6
"""Bytes of a pair on its way: six times what is crossed, in float32."""
_BASE_GB = 1.6  # PyTorch, the dense weights, and the samples of the profiles that are made


def memory_gb(
    backend: str, dtype: str, batch: int, device: str, cap: int | None = None, in_files: bool = False
) -> float:
    """Of a GPU, or of a CPU. in_files: the tables are, where a CPU reads float32 rows."""
    rows = 0 if in_files and (device, dtype) == ("cpu", "float32") else sum(min(rows, cap or rows) for rows in ROWS)
    return (rows * _ROW[dtype] + batch * 270 * _PAIR) / 1e9 + _BASE_GB


capped = partial(memory_gb, cap=CAP)
official = partial(memory_gb, in_files=True)
