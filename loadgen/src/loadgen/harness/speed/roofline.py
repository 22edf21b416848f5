"""What the arithmetic of a device allows: its peak, and how many samples a second that makes."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

SIDE = 2048  # of the matrices whose product is timed on a processor
PEAKS: Mapping[
    str, Mapping[str, float]
] = {  # part of a GPU's name -> dense TFLOP/s by number format, of NVIDIA's data sheets
    "H100": {"float32": 67, "bfloat16": 989, "float16": 989, "float8": 1979, "int8": 1979},
    "H200": {"float32": 67, "bfloat16": 989, "float16": 989, "float8": 1979, "int8": 1979},
    "A100": {"float32": 19.5, "bfloat16": 312, "float16": 312, "int8": 624},
    "L40S": {"float32": 91.6, "bfloat16": 362, "float16": 362, "float8": 733, "int8": 733},
}


def gpu_tflops(device: str, dtype: str) -> float:
    """Of the GPU with this name; 0: not known."""
    return next((peaks.get(dtype, 0.0) for name, peaks in PEAKS.items() if name in device), 0.0)


def core_gflops() -> float:
    """Of one core in float32, by NumPy's matrix product: billions of operations a second of processor time.

    The best of three; several threads of a BLAS count with the time of each.
    """
    matrix = np.random.default_rng(1).random((SIDE, SIDE), np.float32)
    times = []
    for _ in range(3):
        began = time.process_time()
        matrix @ matrix
        times.append(time.process_time() - began)
    return 2e-9 * SIDE**3 / min(times)


def limit(device: str, dtype: str, gflop: float) -> float:
    """Samples a second that the arithmetic of a GPU allows; 0: not known. gflop: of one sample."""
    return 1e3 * gpu_tflops(device, dtype) / gflop if gflop else 0.0
