"""The encoder's LSTMs on a GPU in 16 bits: a step of a layer is one kernel, and STEPS of them are launched as one.

What a layer's inputs give is one large product ahead of its steps. A step then multiplies the last hidden values with
the recurrent weights, and from the four gates in its registers makes the next.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from bench_rnnt.model import Encoder

STEPS = 16
"""Launched as one (a CUDA graph); those beyond a batch's end do nothing."""
_ROWS, _UNITS, _INNER = 128, 64, 64  # of what a program computes, and of a step of its products
_WARPS, _STAGES = 8, 4


@triton.jit(do_not_specialize=["number"])
def _step(
    place,
    lengths,
    projected,
    weight,
    hidden,
    cell,
    number,
    STACK: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    INNER: tl.constexpr,
):
    """Step `number` after the first of these; place: [first step, steps in all, batch].

    projected: [steps, batch, 4 * WIDTH]. hidden: [steps / STACK, batch, STACK * WIDTH], of which what the step before
    has written is read; zeros are written right after an utterance's end. cell: [batch, WIDTH].
    """
    step = tl.load(place) + number
    batch = tl.load(place + 2)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    length = tl.load(lengths + rows, mask=rows < batch, other=-1).to(tl.int32)
    if (step < tl.load(place + 1)) & (step <= tl.max(length, 0)):  # one more, for a last frame that is half of a pair
        unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
        inner = tl.arange(0, INNER)
        is_row, is_unit = (rows < batch)[:, None], (unit < WIDTH)[None, :]
        is_begun = (rows < tl.where(step > 0, batch, 0))[:, None]  # before the first step all is zero
        row, stride = rows.to(tl.int64)[:, None], STACK * WIDTH
        before = hidden + ((step - 1) // STACK * batch + row) * stride + (step - 1) % STACK * WIDTH
        into = tl.zeros((ROWS, UNITS), tl.float32)
        forget = tl.zeros((ROWS, UNITS), tl.float32)
        fresh = tl.zeros((ROWS, UNITS), tl.float32)
        out = tl.zeros((ROWS, UNITS), tl.float32)
        for first in range(0, WIDTH, INNER):
            is_inner = first + inner < WIDTH
            x = tl.load(before + (first + inner)[None, :], mask=is_begun & is_inner[None, :], other=0)
            w = weight + (first + inner)[:, None] * (4 * WIDTH) + unit[None, :]
            is_weight = is_inner[:, None] & is_unit
            into = tl.dot(x, tl.load(w, mask=is_weight, other=0), into)
            forget = tl.dot(x, tl.load(w + WIDTH, mask=is_weight, other=0), forget)
            fresh = tl.dot(x, tl.load(w + 2 * WIDTH, mask=is_weight, other=0), fresh)
            out = tl.dot(x, tl.load(w + 3 * WIDTH, mask=is_weight, other=0), out)
        is_here = is_row & is_unit
        gates = projected + (step.to(tl.int64) * batch + row) * (4 * WIDTH) + unit[None, :]
        into += tl.load(gates, mask=is_here, other=0)
        forget += tl.load(gates + WIDTH, mask=is_here, other=0)
        fresh += tl.load(gates + 2 * WIDTH, mask=is_here, other=0)
        out += tl.load(gates + 3 * WIDTH, mask=is_here, other=0)
        state = cell + row * WIDTH + unit[None, :]
        after = tl.sigmoid(forget) * tl.load(state, mask=is_begun & is_unit, other=0)
        after += tl.sigmoid(into) * (2 * tl.sigmoid(2 * fresh) - 1)
        tl.store(state, after, mask=is_here)
        answer = tl.where((step < length)[:, None], tl.sigmoid(out) * (2 * tl.sigmoid(2 * after) - 1), 0)
        here = hidden + (step // STACK * batch + row) * stride + step % STACK * WIDTH
        tl.store(here + unit[None, :], answer.to(hidden.dtype.element_ty), mask=is_here)


class FusedEncoder:
    """`model.Encoder` for batches of up to so many utterances of up to so many frames. One thread and stream use it."""

    def __init__(self, encoder: Encoder, most: int, frames: int) -> None:
        first = encoder.pre_rnn.lstm
        width, weight = first.hidden_size, cast(Tensor, first.weight_hh_l0)
        frames += -frames % encoder.stack
        self._stack, self._width = encoder.stack, width
        self._projected = weight.new_empty(frames * most * 4 * width)
        self._hidden = [weight.new_empty(frames * most * width) for _ in range(2)]
        self._cell = torch.empty(most, width, dtype=torch.float32, device=weight.device)
        self._place = torch.zeros(3, dtype=torch.int32, device=weight.device)
        self._lengths = torch.zeros(most, dtype=torch.int64, device=weight.device)
        *pre, last = range(encoder.pre_rnn.lstm.num_layers)
        self._pre = [self._layer(encoder.pre_rnn.lstm, number) for number in pre]
        self._pre.append(self._layer(encoder.pre_rnn.lstm, last, encoder.stack))
        self._post = [self._layer(encoder.post_rnn.lstm, n) for n in range(encoder.post_rnn.lstm.num_layers)]

    def __call__(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `model.Encoder`; what stands after an utterance's end means nothing. It stays until the next call."""
        batch = len(lengths)
        for layers, stack in ((self._pre, self._stack), (self._post, 1)):
            self._lengths[:batch] = lengths
            for layer in layers:
                x = layer(x)
            lengths = (lengths + stack - 1) // stack
        return x, lengths

    def _layer(self, lstm: nn.LSTM, number: int, stack: int = 1) -> Callable[[Tensor], Tensor]:
        """[T, B, inputs] -> [ceil(T / stack), B, stack * width] of one layer, which stays until the next but one."""
        of_inputs, of_hidden, *biases = (getattr(lstm, f"{name}_l{number}") for name in _PARTS)
        weight, recurrent, bias = of_inputs.T, of_hidden.T.contiguous(), sum(biases)
        hidden, width = self._hidden[number % 2], self._width
        grid = (triton.cdiv(len(self._cell), _ROWS), triton.cdiv(width, _UNITS))
        sizes = {"STACK": stack, "WIDTH": width, "ROWS": _ROWS, "UNITS": _UNITS, "INNER": _INNER}

        def steps() -> None:
            for step in range(STEPS):
                columns = (self._place, self._lengths, self._projected, recurrent, hidden, self._cell)
                _step[grid](*columns, step, **sizes, num_warps=_WARPS, num_stages=_STAGES)
            self._place[0] += STEPS

        replay = recorded(steps, recurrent.device)

        def run(x: Tensor) -> Tensor:
            time, batch, _ = x.shape
            projected = self._projected[: time * batch * 4 * width].view(-1, 4 * width)
            torch.addmm(bias, x.flatten(0, 1), weight, out=projected)
            time += -time % stack
            for at, value in enumerate((0, time, batch)):
                self._place[at] = value
            for _ in range(0, time, STEPS):
                replay()
            return hidden[: time * batch * width].view(-1, batch, stack * width)

        return run


_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Launches the work's kernels as one. A CPU, which the tests use, just does the work."""
    if device.type == "cpu":
        return work
    stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # outside of the recording: compiles
        work()
    torch.cuda.synchronize(device)
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    replay: Callable[[], None] = graph.replay
    return replay
