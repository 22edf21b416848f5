"""The sizes of a DLRM-DCNv2, and the weights that follow from them, by torchrec's names.

No file holds the sizes: they are read off the shapes of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any, TypeAlias

import numpy.typing as npt

from bench_dlrm_v2.official import DENSE_FEATURES, ROWS, TABLES
from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import check_shapes

Tensors: TypeAlias = "Mapping[str, npt.NDArray[Any]]"
"""By the names of `weight_shapes`."""
Shapes: TypeAlias = "Mapping[str, tuple[int, ...]]"

PREFIX = "model."
"""Of all names: torchrec's class for training wraps the model."""
BOTTOM = f"{PREFIX}dense_arch.model._mlp"
CROSS = f"{PREFIX}inter_arch.crossnet"
TOP = f"{PREFIX}over_arch.model.0._mlp"
LAST = f"{PREFIX}over_arch.model.1"


def table_name(number: int) -> str:
    """The weights of table 0 to 25."""
    return f"{PREFIX}sparse_arch.embedding_bag_collection.embedding_bags.t_cat_{number}.weight"


@dataclass(frozen=True)
class DlrmConfig:
    """Defaults: the benchmark's model (16.0 M parameters beside the tables)."""

    rows: tuple[int, ...] = ROWS
    dim: int = 128
    """Columns of each table, and width of the last bottom layer."""
    dense: int = DENSE_FEATURES
    bottom: tuple[int, ...] = (512, 256, 128)
    cross_layers: int = 3
    rank: int = 512
    top: tuple[int, ...] = (1024, 1024, 512, 256)
    """Without the last layer, of width 1."""

    @property
    def width(self) -> int:
        """Of what is crossed: the bottom's output, then each table's bag."""
        return (1 + len(self.rows)) * self.dim


def weight_shapes(config: DlrmConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor."""
    shapes: dict[str, tuple[int, ...]] = {
        table_name(number): (rows, config.dim) for number, rows in enumerate(config.rows)
    }
    shapes |= _perceptron(BOTTOM, (config.dense, *config.bottom))
    for number in range(config.cross_layers):
        shapes[f"{CROSS}.W_kernels.{number}"] = (config.width, config.rank)
        shapes[f"{CROSS}.V_kernels.{number}"] = (config.rank, config.width)
        shapes[f"{CROSS}.bias.{number}"] = (config.width,)
    shapes |= _perceptron(TOP, (config.width, *config.top))
    return shapes | {f"{LAST}.weight": (1, config.top[-1]), f"{LAST}.bias": (1,)}


def _perceptron(name: str, widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        shapes |= {f"{name}.{number}._linear.weight": (outputs, inputs), f"{name}.{number}._linear.bias": (outputs,)}
    return shapes


def config_of(shapes: Shapes, source: str) -> DlrmConfig:
    """The sizes that these shapes show. Raises InputError naming the first tensor that does not fit the others."""
    tables = [_shape(shapes, table_name(number), 2, source) for number in range(TABLES)]
    bottom = [_shape(shapes, name, 2, source) for name in _numbered(shapes, BOTTOM, "._linear.weight")]
    config = DlrmConfig(
        rows=tuple(rows for rows, _ in tables),
        dim=tables[0][1],
        dense=bottom[0][1],
        bottom=tuple(outputs for outputs, _ in bottom),
        cross_layers=len(list(_numbered(shapes, f"{CROSS}.V_kernels"))),
        rank=_shape(shapes, f"{CROSS}.V_kernels.0", 2, source)[0],
        top=tuple(_shape(shapes, name, 2, source)[0] for name in _numbered(shapes, TOP, "._linear.weight")),
    )
    check_shapes(shapes, weight_shapes(config), source, "tables")
    if config.bottom[-1] != config.dim:
        raise InputError(f"{source}: the bottom ends {config.bottom[-1]} wide, tables have {config.dim} columns")
    return config


def _numbered(shapes: Shapes, name: str, rest: str = "") -> Iterator[str]:
    """The tensors `name.0`, `name.1`, ... that are there; the first even if it is not, for its reader to report."""
    for number in count():
        found = f"{name}.{number}{rest}"
        if number and found not in shapes:
            return
        yield found


def _shape(shapes: Shapes, name: str, dimensions: int, source: str) -> tuple[int, ...]:
    if name not in shapes:
        raise InputError(f"{source}: tensor {name!r} is missing: use the snapshot of a whole DLRM-DCNv2")
    if len(shapes[name]) != dimensions:
        raise InputError(f"{source}: tensor {name!r} has shape {list(shapes[name])}, not {dimensions} dimensions")
    return tuple(shapes[name])
