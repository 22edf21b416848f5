"""How much memory a run takes. Imports nothing heavy, so that `info` and `doctor` are instant."""

from __future__ import annotations

_PARAMETERS = 2_567_463_684 + 123_060_480 + 694_659_840 + 49_490_199
"""U-Net, text encoders, and the VAE's decoder: SDXL base 1.0."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 2}
"""Of a number; in float8 are most weights of the U-Net only, and not before they were read."""


def memory_gb(backend: str, dtype: str, batch: int, device: str = "cuda") -> float:
    """GB of the device's memory: the weights, what the VAE needs to decode four images, and the U-Net for a batch.

    An estimate from the largest arrays: the VAE's of 256 x 1024 x 1024 numbers, five at a time; the U-Net's of
    640 x 128 x 128 numbers, twice for each image and some thirty at a time.
    """
    size = _BYTES[dtype]
    decoding = min(batch, 4) * 5 * 256 * 1024**2 * (4 if dtype == "float16" else size)
    denoising = batch * 2 * 30 * 640 * 128**2 * size
    return float(_PARAMETERS * size + max(decoding, denoising)) / 1e9
