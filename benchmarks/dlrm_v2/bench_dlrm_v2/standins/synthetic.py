"""Profiles of full size without official files: dense weights and data in the official formats, tables from a hash.

Tables of 104.5 GB need no file: a row's values follow from its number, so they are made where they are to lie. The
snapshot lists the tables' files all the same, as it shows the sizes. Speed means something, answers do not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bench_dlrm_v2.config import DlrmConfig, table_name, weight_shapes
from bench_dlrm_v2.needs import CAP
from bench_dlrm_v2.official import DENSE_FEATURES, HOTS, METADATA, ROWS, SAMPLE, SNAPSHOT, SPARSE
from bench_dlrm_v2.snapshot import Snapshot
from bench_dlrm_v2.standins.day_23 import write_day
from bench_dlrm_v2.standins.formats import write_snapshot
from bench_dlrm_v2.trace import aggregate
from loadgen.harness.standins.making import check_space, tell, writing

if TYPE_CHECKING:
    import torch

SEED = 1
PAIRS = 552_960
"""2,045 samples: indices of 473 MB."""
SKEW = 1.05
"""The exponent of Zipf's law that an item's popularity follows."""
_MIXED = 0x7FEB352D, 0x846CA68B  # multipliers that change half of a number's bits for each bit that changes


def prepare(folder: Path, cap: int | None = None, is_uniform: bool = False, pairs: int = PAIRS) -> None:
    """Fill `folder/data` and `folder/model`. What is there stays.

    cap: of rows of a table. is_uniform: all items are as popular, so that no cache helps.
    """
    config = DlrmConfig(rows=tuple(min(rows, cap or rows) for rows in ROWS))
    snapshot, data = folder / "model" / SNAPSHOT, folder / "data"
    if not (snapshot / METADATA).is_file():
        with writing(snapshot):
            write_snapshot(snapshot, config, random_tensors(config))
    if not (data / f"{SPARSE}{SAMPLE}.npz").is_file():
        with writing(data):
            write_data(data, Snapshot(snapshot).config, is_uniform, pairs)


prepare_uniform = partial(prepare, is_uniform=True)
prepare_capped = partial(prepare, cap=CAP)


def random_tensors(config: DlrmConfig, seed: int = SEED) -> dict[str, npt.NDArray[np.float32]]:
    """All weights but the tables, as a net is before training."""
    rng = np.random.default_rng(seed)
    tables = {table_name(number) for number in range(len(config.rows))}
    shapes = {name: shape for name, shape in weight_shapes(config).items() if name not in tables}
    return {
        name: rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5) for name, shape in shapes.items()
    }


def write_data(data: Path, config: DlrmConfig, is_uniform: bool, pairs: int, seed: int = SEED) -> None:
    """The three files of so many pairs, all for validation. Raises InputError for a full disk."""
    size = 4 * pairs * (sum(HOTS) + DENSE_FEATURES + 1)
    check_space(data, size)
    tell(f"making {data}: {len(aggregate(pairs).starts):,} samples of {pairs:,} pairs, {size / 1e9:.2f} GB")
    began = time.monotonic()
    rng = np.random.default_rng(seed)
    dense = np.log(3 + rng.exponential(20.0, (pairs, DENSE_FEATURES))).astype(np.float32)
    labels = (rng.random(pairs) < 0.032).astype(np.int32)  # about as rare as Criteo's clicks
    write_day(data, dense, _indices(rng, config, is_uniform, pairs), labels, SAMPLE)
    tell(f"  done in {time.monotonic() - began:.0f} s")


def _indices(
    rng: np.random.Generator, config: DlrmConfig, is_uniform: bool, pairs: int
) -> Iterator[npt.NDArray[np.int32]]:
    """[pairs, hot] of each table, as the official multi-hot ids were made of Criteo's single ones: the first index is
    an item, popular or not, and the others follow from it, anywhere in the table."""
    for table, (rows, hot) in enumerate(zip(config.rows, HOTS, strict=True)):
        chance = rng.random(pairs)
        ranks = chance * rows if is_uniform else _zipf(chance, rows)
        items = np.minimum(ranks.astype(np.int64), rows - 1)
        ids = hashed((items[:, None] * 128 + np.arange(hot)).astype(np.uint64) + np.uint64(table << 40))
        ids = (ids.astype(np.uint64) * np.uint64(rows)) >> np.uint64(32)
        if hot == 1 or is_uniform:
            ids[:, 0] = items
        yield ids.astype(np.int32)


def _zipf(chance: npt.NDArray[np.float64], rows: int) -> npt.NDArray[np.float64]:
    """Ranks 0 to rows whose chance falls as 1 / rank ** SKEW: the inverse of that law's sum, as an integral."""
    power = 1 - SKEW
    ranks: npt.NDArray[np.float64] = ((1 + chance * ((1 + rows) ** power - 1)) ** (1 / power)) - 1
    return ranks


def hashed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """32 bits of each number that look random."""
    mixed = (numbers ^ (numbers >> np.uint64(32))).astype(np.uint32)
    for shift, multiplier in zip((16, 15), _MIXED, strict=True):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(multiplier)
    return mixed ^ (mixed >> np.uint32(16))


def make_rows(table: int, first: int, rows: int, dim: int, device: torch.device) -> torch.Tensor:
    """Values between -0.1 and 0.1 from a hash of table, row and column (`pytorch.source.Maker`)."""
    import torch

    row = torch.arange(first, first + rows, device=device)[:, None]
    mixed = (row * dim + torch.arange(dim, device=device)) * 32 + table
    mixed = mixed.bitwise_xor_(mixed >> 32).bitwise_and_(0xFFFFFFFF)
    for shift, multiplier in zip((16, 15), _MIXED, strict=True):
        mixed.bitwise_xor_(mixed >> shift).mul_(multiplier).bitwise_and_(0xFFFFFFFF)
    return mixed.bitwise_xor_(mixed >> 16).float().mul_(0.2 / 2**32).sub_(0.1)
