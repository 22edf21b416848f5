"""The Frechet distance of two sets of features, each known by its mean and covariance (Heusel et al. 2017: FID)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

F64: TypeAlias = "npt.NDArray[np.float64]"


class Moments:
    """Mean and covariance of features that come batch by batch: sums in float64, whatever their number."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self._sum = np.zeros(size)
        self._products = np.zeros((size, size))
        self._origin: F64 | None = None

    def add(self, features: npt.NDArray[Any]) -> None:
        """features: [n, size]."""
        batch = np.asarray(features, np.float64)
        if self._origin is None:
            self._origin = batch.mean(axis=0)  # sums of what is near 0 lose nothing when squares are subtracted
        batch = batch - self._origin
        self.count += len(batch)
        self._sum += batch.sum(axis=0)
        self._products += batch.T @ batch

    @property
    def mean(self) -> F64:
        assert self._origin is not None, "no features were added"
        return np.asarray(self._origin + self._sum / self.count)

    @property
    def covariance(self) -> F64:
        """Of a sample: divided by one less than the count, of which there must be two."""
        mean = self._sum / self.count
        return np.asarray((self._products - self.count * np.outer(mean, mean)) / (self.count - 1))


def distance(mean_1: F64, covariance_1: F64, mean_2: F64, covariance_2: F64) -> float:
    """|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)).

    The root's trace is the sum of the roots of the eigenvalues of C1 C2, which are those of the symmetric
    C1^(1/2) C2 C1^(1/2): no complex numbers, and no root of a matrix that may be singular.
    """
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_2 @ root), 0)).sum()
    gap = mean_1 - mean_2
    return float(gap @ gap + np.trace(covariance_1) + np.trace(covariance_2) - 2 * shared)
