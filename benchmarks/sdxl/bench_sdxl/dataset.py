"""What images are made from: a caption's tokens of each sample, the negative prompt's, and one latent for all."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_sdxl.captions import read_captions
from bench_sdxl.layout import read_configs, read_tokenizers
from bench_sdxl.official import CAPTIONS, LATENTS, STATISTICS
from loadgen.contracts import I64, InputError


@dataclass(frozen=True)
class Batch:
    """Prompts of n samples, as token ids of both tokenizers."""

    ids: I64
    """[n, 77]."""
    ids_2: I64
    """[n, 77]; padded otherwise."""
    latents: npt.NDArray[np.float32]
    """[1, 4, 128, 128]: the noise that every image begins with."""


@dataclass(frozen=True)
class Statistics:
    """Of the features of COCO's validation images, for FID."""

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]


class Dataset:
    """The captions of `data/captions/captions.tsv` (see `contracts.Dataset`)."""

    def __init__(self, folder: Path, *, count: int = 5000, feature_side: int = 299) -> None:
        """count: captions that the file must have. feature_side: what FID's network resizes to.

        Raises InputError that names the file and the fault."""
        self.feature_side = feature_side
        configs = read_configs(folder / "model")
        self.side = configs.side
        self.captions = read_captions(folder / "data" / CAPTIONS, count)
        self.latents = read_latents(folder / "data", configs.latent_shape)
        self.statistics = read_statistics(folder / "data" / STATISTICS)
        self.tokenizers = read_tokenizers(folder / "model")
        length = configs.text.max_position_embeddings
        self._ids, self._ids_2 = (
            np.array([tokenizer.row(caption, length) for caption in self.captions]) for tokenizer in self.tokenizers
        )

    @property
    def name(self) -> str:
        return "COCO 2014 captions"

    @property
    def total_count(self) -> int:
        return len(self.captions)

    @property
    def performance_count(self) -> int:
        """All: tokens of 5,000 captions take 6 MB."""
        return len(self.captions)

    @property
    def answer_bytes(self) -> int:
        """Of an image."""
        return 3 * self.side**2

    def load(self, indices: Sequence[int]) -> None:
        """Nothing to do: tokenising is not timed, and reading the file did it."""

    def unload(self, indices: Sequence[int]) -> None:
        """Nothing to do."""

    def gather(self, indices: I64) -> Batch:
        """The prompts of these samples."""
        return Batch(self._ids[indices], self._ids_2[indices], self.latents)

    def costs(self, indices: I64) -> I64:
        """Every image is as much work as another."""
        return np.ones(len(indices), np.int64)


def read_latents(data: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The official noise, which no generator gives to the bit. Raises InputError that names file and fault."""
    path = next((data / name for name in LATENTS if (data / name).is_file()), data / LATENTS[0])
    advice = "put the official latents.npy or latents.pt there"
    if not path.is_file():
        raise InputError(f"{path}: no such file: {advice}")
    try:
        values = np.load(path) if path.suffix == ".npy" else _tensor(path)
        latents = np.asarray(values, np.float32)
    except Exception as error:  # from bytes of any kind numpy and PyTorch raise any kind
        raise InputError(f"{path}: not an array of latents ({type(error).__name__}): {advice}") from error
    if latents.shape != shape or not np.isfinite(latents).all():
        raise InputError(f"{path}: latents {list(latents.shape)}, {list(shape)} finite numbers expected: {advice}")
    return latents


def _tensor(path: Path) -> npt.NDArray[np.float32]:
    import torch

    found = torch.load(path, map_location="cpu", weights_only=True)
    return np.asarray(found.float().numpy(), np.float32)


def read_statistics(path: Path) -> Statistics:
    """Of `val2014.npz`. Raises InputError that names file and fault."""
    advice = "put the official val2014.npz there"
    if not path.is_file():
        raise InputError(f"{path}: no such file: {advice}")
    try:
        with np.load(path) as stored:
            found = Statistics(stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64))
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no statistics mu and sigma ({type(error).__name__}): {advice}") from error
    size = len(found.mean)
    if found.mean.shape != (size,) or found.covariance.shape != (size, size):
        raise InputError(
            f"{path}: mu {list(found.mean.shape)} and sigma {list(found.covariance.shape)} do not fit: {advice}"
        )
    return found
