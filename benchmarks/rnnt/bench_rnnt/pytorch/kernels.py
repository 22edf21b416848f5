"""Greedy decoding of a whole batch as one Triton kernel. Without a GPU Triton can interpret it.

A program takes some utterances from their first frame to their last label, and waits for nobody: neither for the
processor nor for another program. In each round it reads the prediction's weights once, from the cache that all
programs share. The rule and its round are those of `decoding`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench_rnnt.official import ALPHABET, MAX_SYMBOLS
from bench_rnnt.pytorch.decoding import AHEAD, Greedy, Labels

_BLOCK = 64  # all sizes are filled up with zeros to a multiple of it: zero weights keep a hidden unit at 0
_SMALL_GROUP, _LARGE_GROUP, _SMALL_BATCH = 16, 32, 512
"""Utterances that a program takes: in a large batch more, so that the next batch's encoder has processors to run on."""
_OUTPUTS = 32  # 28 labels, the blank, and three that never win
LAUNCH = {"num_warps": 8, "num_stages": 1}
"""Not for the joint: with more stages a Hopper GPU's products in 16 bits take its values from registers, and are still
reading them when the next block's are written there, as Triton 3.6 compiles it (its issue 9433). Labels were wrong."""
_STAGES = tl.constexpr(3)
"""Blocks of the prediction's weights that are asked for ahead."""


@triton.jit
def _added(into, forget, fresh, out, inputs, weight, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr):
    """The four gates of BLOCK units, each with inputs @ weight added: of a matrix [WIDTH, 4 * WIDTH], gate after gate.

    inputs: pointers to the first BLOCK columns of some rows. weight: to these units' columns of the first row.
    """
    inner = tl.arange(0, BLOCK)[:, None] * (4 * WIDTH)
    for first in tl.range(0, WIDTH, BLOCK, num_stages=_STAGES):
        x = tl.load(inputs + first)
        w = weight[None, :] + first * (4 * WIDTH) + inner
        into = tl.dot(x, tl.load(w), into, input_precision=PRECISION)
        forget = tl.dot(x, tl.load(w + WIDTH), forget, input_precision=PRECISION)
        fresh = tl.dot(x, tl.load(w + 2 * WIDTH), fresh, input_precision=PRECISION)
        out = tl.dot(x, tl.load(w + 3 * WIDTH), out, input_precision=PRECISION)
    return into, forget, fresh, out


@triton.jit(do_not_specialize=["batch", "ids_stride"])  # else another length would be compiled for during a test
def _decode(
    frames,
    lengths,
    table,
    recurrent,
    later,
    biases,
    prediction_part,
    last_weight,
    last_bias,
    hidden,
    cell,
    predicted,
    ids,
    counts,
    batch,
    time_stride,
    batch_stride,
    ids_stride,
    LAYERS: tl.constexpr,
    WIDTH: tl.constexpr,
    JOINT: tl.constexpr,
    GROUP: tl.constexpr,
    START: tl.constexpr,
    BLANK: tl.constexpr,
    MOST: tl.constexpr,
    AHEAD: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """hidden: [2, layers, batch, WIDTH], of which a round reads one and writes the other."""
    row = tl.program_id(0) * GROUP + tl.arange(0, GROUP)
    is_row = row < batch
    row = tl.minimum(row, batch - 1).to(tl.int64)
    mine = tl.program_id(0).to(tl.int64) * GROUP + tl.arange(0, GROUP)
    length = tl.where(is_row, tl.load(lengths + row).to(tl.int32), 0)
    unit = tl.arange(0, BLOCK)
    output = tl.arange(0, OUTPUTS)
    ahead = tl.arange(0, AHEAD)
    from_state = mine[:, None] * WIDTH + unit[None, :]
    layer_size = tl.num_programs(0).to(tl.int64) * GROUP * WIDTH
    time = tl.zeros((GROUP,), tl.int32)
    here = tl.zeros((GROUP,), tl.int32)
    count = tl.zeros((GROUP,), tl.int32)
    label = tl.full((GROUP,), START, tl.int32)
    has_label = tl.full((GROUP,), 1, tl.int1)
    old = 0
    while tl.max((time < length).to(tl.int32), 0) > 0:
        # the prediction goes on with the labels of the last round
        new = 1 - old
        for layer in tl.static_range(LAYERS):
            read = hidden + (old * LAYERS + layer) * layer_size
            write = hidden + (new * LAYERS + layer) * layer_size
            below = hidden + (new * LAYERS + layer - 1) * layer_size
            state = cell + layer * layer_size
            for first in range(0, WIDTH, BLOCK):
                at = first + unit
                if layer == 0:
                    start = table + label[:, None] * (4 * WIDTH) + at[None, :]
                else:
                    start = biases + (layer - 1) * 4 * WIDTH + label[:, None] * 0 + at[None, :]
                into = tl.load(start).to(tl.float32)
                forget = tl.load(start + WIDTH).to(tl.float32)
                fresh = tl.load(start + 2 * WIDTH).to(tl.float32)
                out = tl.load(start + 3 * WIDTH).to(tl.float32)
                if layer > 0:
                    into, forget, fresh, out = _added(
                        into,
                        forget,
                        fresh,
                        out,
                        below + from_state,
                        later + 8 * (layer - 1) * WIDTH * WIDTH + at,
                        WIDTH,
                        BLOCK,
                        PRECISION,
                    )
                weight = recurrent if layer == 0 else later + (8 * layer - 4) * WIDTH * WIDTH
                into, forget, fresh, out = _added(
                    into, forget, fresh, out, read + from_state, weight + at, WIDTH, BLOCK, PRECISION
                )
                place = from_state + first
                before = tl.load(state + place)
                after = tl.sigmoid(forget) * before + tl.sigmoid(into) * (2 * tl.sigmoid(2 * fresh) - 1)
                answer = tl.sigmoid(out) * (2 * tl.sigmoid(2 * after) - 1)
                kept = tl.load(read + place)
                tl.store(state + place, tl.where(has_label[:, None], after, before))
                tl.store(write + place, tl.where(has_label[:, None], answer.to(kept.dtype), kept))
            tl.debug_barrier()
        top = hidden + (new * LAYERS + LAYERS - 1) * layer_size
        for first in range(0, JOINT, BLOCK):
            total = tl.zeros((GROUP, BLOCK), tl.float32)
            for inner in tl.range(0, WIDTH, BLOCK, num_stages=_STAGES):
                x = tl.load(top + from_state + inner)
                w = tl.load(prediction_part + (inner + unit)[:, None] * JOINT + (first + unit)[None, :])
                total = tl.dot(x, w, total, input_precision=PRECISION)
            tl.store(predicted + mine[:, None] * JOINT + (first + unit)[None, :], total.to(predicted.dtype.element_ty))
        tl.debug_barrier()
        old = new
        # some frames ahead are compared with it
        frame = time[:, None] + ahead[None, :]
        inside = frame < length[:, None]
        last = tl.maximum(length[:, None] - 1, 0)
        from_frame = row[:, None] * batch_stride + tl.minimum(frame, last).to(tl.int64) * time_stride
        from_frame = tl.reshape(from_frame, (GROUP * AHEAD,))
        from_row = tl.reshape(mine[:, None] + tl.zeros((1, AHEAD), tl.int64), (GROUP * AHEAD,)) * JOINT
        logits = tl.load(last_bias + output)[None, :] + tl.zeros((GROUP * AHEAD, 1), tl.float32)
        for first in range(0, JOINT, BLOCK):
            x = tl.load(frames + from_frame[:, None] + (first + unit)[None, :])
            y = tl.load(predicted + from_row[:, None] + (first + unit)[None, :])
            z = tl.maximum(x.to(tl.float32) + y.to(tl.float32), 0).to(x.dtype)
            w = tl.load(last_weight + (first + unit)[:, None] * OUTPUTS + output[None, :])
            logits = tl.dot(z, w, logits, input_precision=PRECISION)
        found = tl.reshape(tl.argmax(logits, 1), (GROUP, AHEAD))
        is_label = (found != BLANK) & inside
        moved = tl.min(tl.where(is_label, ahead[None, :], AHEAD), 1)
        has_label = moved < AHEAD
        label = tl.sum(tl.where(ahead[None, :] == moved[:, None], found, 0), 1)
        tl.store(ids + row * ids_stride + count, label.to(tl.int8), mask=has_label)
        count += has_label.to(tl.int32)
        here = tl.where(moved > 0, 0, here) + has_label.to(tl.int32)
        is_full = here >= MOST
        here = tl.where(is_full, 0, here)
        time += tl.where(time < length, moved + is_full.to(tl.int32), 0)
    tl.store(counts + row, count.to(tl.int64), mask=is_row)


class Decoder:
    """`decoding.decode` on a GPU, in two parts: nothing of it waits for the processor, or makes it wait."""

    def __init__(self, greedy: Greedy) -> None:
        width, joint = (-(-size // _BLOCK) * _BLOCK for size in greedy.prediction_part.shape)
        self._width, self._joint, self._layers = width, joint, 1 + len(greedy.later)
        self._encoder_part = _filled(greedy.encoder_part, greedy.encoder_part.shape[0], joint)
        self._bias = _filled(greedy.bias[None], 1, joint)[0]
        self._table = _gates(greedy.table, len(greedy.table), width)
        self._recurrent = _gates(greedy.recurrent, width, width)
        parts = [half for weight in greedy.later for half in weight.chunk(2)]
        self._later = torch.cat([_gates(part, width, width) for part in parts or [greedy.recurrent]])
        self._biases = torch.cat([_gates(bias[None], 1, width) for bias in greedy.biases])[1:].contiguous()
        self._prediction_part = _filled(greedy.prediction_part, width, joint)
        self._last_weight = _filled(greedy.last_weight, joint, _OUTPUTS)
        self._last_bias = greedy.last_bias.new_full((_OUTPUTS,), -torch.inf, dtype=torch.float32)
        self._last_bias[: len(greedy.last_bias)] = greedy.last_bias

    def project(self, encoded: Tensor) -> Tensor:
        """[T, B, encoder hidden] -> [T, B, joint]: the encoder's part of the joint's first layer."""
        return torch.addmm(self._bias, encoded.flatten(0, 1), self._encoder_part).view(*encoded.shape[:2], self._joint)

    def __call__(self, frames: Tensor, lengths: Tensor) -> Labels:
        """All labels of a batch: frames as `project` gives them, lengths [B] in encoder frames."""
        time, batch, _ = frames.shape
        group = _SMALL_GROUP if batch <= _SMALL_BATCH else _LARGE_GROUP
        groups = triton.cdiv(batch, group)
        rows = groups * group
        hidden = frames.new_zeros(2, self._layers, rows, self._width)
        cell = torch.zeros(self._layers, rows, self._width, dtype=torch.float32, device=frames.device)
        predicted = frames.new_empty(rows, self._joint)
        ids = torch.empty(batch, MAX_SYMBOLS * time, dtype=torch.int8, device=frames.device)
        counts = torch.empty(batch, dtype=torch.int64, device=frames.device)
        _decode[(groups,)](
            frames,
            lengths,
            self._table,
            self._recurrent,
            self._later,
            self._biases,
            self._prediction_part,
            self._last_weight,
            self._last_bias,
            hidden,
            cell,
            predicted,
            ids,
            counts,
            batch,
            frames.stride(0),
            frames.stride(1),
            ids.stride(0),
            LAYERS=self._layers,
            WIDTH=self._width,
            JOINT=self._joint,
            GROUP=group,
            START=len(ALPHABET),
            BLANK=len(ALPHABET),
            MOST=MAX_SYMBOLS,
            AHEAD=AHEAD,
            OUTPUTS=_OUTPUTS,
            BLOCK=_BLOCK,
            PRECISION="ieee",
            **LAUNCH,
        )
        return Labels(ids, counts)


def _filled(weight: Tensor, rows: int, columns: int) -> Tensor:
    """The matrix with zeros below and behind it."""
    filled = weight.new_zeros(rows, columns)
    filled[: weight.shape[0], : weight.shape[1]] = weight
    return filled


def _gates(weight: Tensor, rows: int, width: int) -> Tensor:
    """[n, 4 * hidden] -> [rows, 4 * width]: each gate filled up by itself."""
    return torch.cat([_filled(gate, rows, width) for gate in weight.chunk(4, dim=1)], dim=1)
