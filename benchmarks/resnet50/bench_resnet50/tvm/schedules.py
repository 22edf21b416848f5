"""How TVM computes convolutions and matrix products on a CPU: weights packed by output channels, tiles in registers.

TVM's own loops for them are the plain definition, which on AVX-512 takes 30 times as long as these. They need no
tuning runs, and the batch may be of any size. (Searching schedules by `tvm.s_tir.meta_schedule` takes hours.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tvm  # type: ignore[import-untyped]
from tvm import relax, s_tir, te, topi

_SPATIAL = 0  # kind of an axis that no sum runs over


class Level(NamedTuple):
    """What a processor offers, and the tile that its vector registers hold."""

    name: str
    """As LLVM calls it."""
    features: frozenset[str]
    lanes: int
    """Output channels of a tile: two vectors."""
    columns: int
    """Pixels of a tile, a divisor of ResNet-50's widths: with 2 vectors each they leave registers for operands."""


LEVELS = (
    Level("x86-64-v4", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}), 32, 14),
    Level("x86-64-v3", frozenset({"avx2", "fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe"}), 16, 7),
    Level("generic", frozenset(), 8, 7),
)


def legalisers(level: Level) -> dict[str, Any]:
    """What `LegalizeOps` turns the two operators into, for constant weights; others get TVM's own loops."""

    def convolution(builder: Any, call: Any) -> Any:
        attrs = call.attrs
        if not isinstance(call.args[1], tvm.ir.GenericConst) or attrs.groups != 1 or set(attrs.dilation) != {1}:
            return call.op.get_attr("FLegalize")(builder, call)
        weight = packed(call.args[1].value.numpy(), level.lanes)
        sizes = [int(size) for size in attrs.strides], [int(size) for size in attrs.padding]
        return builder.call_te(_convolution, call.args[0], relax.const(weight), *sizes, primfunc_name_hint="conv2d")

    def product(builder: Any, call: Any) -> Any:
        if not isinstance(call.args[1], tvm.ir.GenericConst) or len(call.args[0].ty.shape) != 2:
            return call.op.get_attr("FLegalize")(builder, call)
        weight = packed(call.args[1].value.numpy(), level.lanes)
        return builder.call_te(_product, call.args[0], relax.const(weight), primfunc_name_hint="matmul")

    return {"relax.nn.conv2d": convolution, "relax.matmul": product}


def packed(weight: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.float32]:
    """[..., outputs] as [outputs / lanes, ..., lanes]: what is read one after the other lies side by side."""
    lanes = _divisor(weight.shape[-1], most)
    return np.ascontiguousarray(np.moveaxis(weight.reshape(*weight.shape[:-1], -1, lanes), -2, 0))


def _divisor(number: int, most: int) -> int:
    """The greatest divisor that is no more than `most`."""
    return max(divisor for divisor in range(1, most + 1) if number % divisor == 0)


def _convolution(x: Any, weight: Any, strides: list[int], padding: list[int]) -> Any:
    """x [n, height, width, inputs], weight [outputs / lanes, kernel height, kernel width, inputs, lanes]."""
    groups, *kernel, lanes = (int(size) for size in weight.shape)
    if any(padding):
        x = topi.nn.pad(x, [0, *padding[:2], 0], [0, *padding[2:], 0], name="padded")
    rows, columns = ((x.shape[n + 1] - kernel[n]) // strides[n] + 1 for n in range(2))
    down, right, inputs = axes = [te.reduce_axis((0, size)) for size in kernel]
    return te.compute(
        (x.shape[0], rows, columns, groups * lanes),
        lambda n, row, column, output: te.sum(
            x[n, row * strides[0] + down, column * strides[1] + right, inputs]
            * weight[output // lanes, down, right, inputs, output % lanes],
            axes,
        ),
        name="packed",
        attrs={"lanes": lanes},
    )


def _product(x: Any, weight: Any) -> Any:
    """x [n, inputs], weight [outputs / lanes, inputs, lanes]."""
    groups, inputs, lanes = (int(size) for size in weight.shape)
    axis = te.reduce_axis((0, inputs))
    return te.compute(
        (x.shape[0], groups * lanes),
        lambda n, output: te.sum(x[n, axis] * weight[output // lanes, axis, output % lanes], [axis]),
        name="packed",
        attrs={"lanes": lanes},
    )


def scheduled(module: Any, level: Level) -> Any:
    """The module with the loops of every function in a good order."""
    for variable, function in list(module.functions.items()):
        if isinstance(function, tvm.tirx.PrimFunc):
            module[variable] = _schedule(function, level)
    return module


def _schedule(function: Any, level: Level) -> Any:
    schedule = s_tir.Schedule(function)
    blocks = {schedule.get(block).name_hint: block for block in schedule.get_child_blocks(schedule.get_sblock("root"))}
    main = blocks.pop("packed", None)
    if "padded" in blocks or main is None:
        for block in [blocks.pop("padded")] if main else list(blocks.values()):
            _spread(schedule, block)
    if main:
        _tile(schedule, main, list(blocks.values()), level.columns)
    return schedule.mod["main"]


def _spread(schedule: Any, block: Any) -> None:
    """Any other operator: rows over the threads, sums outside of the last axis."""
    kinds = [int(axis.iter_type) for axis in schedule.get(block).iter_vars]
    loops = schedule.get_loops(block)
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _SPATIAL]
    sums = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != _SPATIAL]
    if len(spatial) < 2:
        return
    schedule.reorder(*spatial[:-1], *sums, spatial[-1])
    schedule.parallel(schedule.fuse(*spatial[:2]) if len(spatial) > 2 else spatial[0])
    if sums:
        schedule.decompose_reduction(block, sums[0])


def _tile(schedule: Any, main: Any, followers: list[Any], columns: int) -> None:
    """Sum a tile of columns x lanes in registers; what follows (bias, addition, ReLU) stores it.

    Threads share the groups of lanes first, then images and rows, so that each keeps its weights in its cache.
    """
    for block in followers[:-1]:
        schedule.compute_inline(block)
    if followers:
        last = followers[-1]
        schedule.set_scope(main, 0, "local")
    else:
        last = schedule.cache_write(main, 0, "local")
    *rows, output = schedule.get_loops(last)
    group, lane = schedule.split(output, [None, int(schedule.get(main).annotations["lanes"])])
    tile, inner = 1, [lane]
    if len(rows) > 1:
        tile = _divisor(int(schedule.get(rows[-1]).extent), columns)
    rows[-1], column = schedule.split(rows[-1], [None, tile])
    inner = [column, lane]
    schedule.reorder(group, *rows, *inner)
    schedule.compute_at(main, rows[-1], preserve_unit_loops=True)
    _sum_in_registers(schedule, main, last, [group, *rows])


def _sum_in_registers(schedule: Any, main: Any, last: Any, outer: list[Any]) -> None:
    kinds = [int(axis.iter_type) for axis in schedule.get(main).iter_vars]
    loops = schedule.get_loops(main)[len(outer) :]
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _SPATIAL]
    sums = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != _SPATIAL]
    schedule.reorder(*sums, *spatial)
    schedule.parallel(schedule.fuse(*outer[:-1]) if len(outer) > 2 else schedule.fuse(*outer))
    for block in (main, last):
        column, lane = schedule.get_loops(block)[-2:]
        schedule.vectorize(lane)
        schedule.unroll(column)
    schedule.decompose_reduction(main, sums[0])
