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
    projected,
    weight,
    hidden,
    cell,
    number,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    INNER: tl.constexpr,
):
    """Step `number` after the first of these; place: [first step, steps in all, batch].

    projected: [steps, batch, 4 * WIDTH]. hidden: [1 + steps, batch, WIDTH], of which one is read and the next written.
    """
    step = tl.load(place) + number
    batch = tl.load(place + 2)
    if (step < tl.load(place + 1)) & (tl.program_id(0) * ROWS < batch):
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
        inner = tl.arange(0, INNER)
        is_row, is_unit = (row < batch)[:, None], (unit < WIDTH)[None, :]
        row = (step.to(tl.int64) * batch + row)[:, None] * WIDTH
        into = tl.zeros((ROWS, UNITS), tl.float32)
        forget = tl.zeros((ROWS, UNITS), tl.float32)
        fresh = tl.zeros((ROWS, UNITS), tl.float32)
        out = tl.zeros((ROWS, UNITS), tl.float32)
        for first in range(0, WIDTH, INNER):
            is_inner = first + inner < WIDTH
            x = tl.load(hidden + row + (first + inner)[None, :], mask=is_row & is_inner[None, :], other=0)
            w = weight + (first + inner)[:, None] * (4 * WIDTH) + unit[None, :]
            is_weight = is_inner[:, None] & is_unit
            into = tl.dot(x, tl.load(w, mask=is_weight, other=0), into)
            forget = tl.dot(x, tl.load(w + WIDTH, mask=is_weight, other=0), forget)
            fresh = tl.dot(x, tl.load(w + 2 * WIDTH, mask=is_weight, other=0), fresh)
            out = tl.dot(x, tl.load(w + 3 * WIDTH, mask=is_weight, other=0), out)
        is_here = is_row & is_unit
        gates = projected + 4 * row + unit[None, :]
        into += tl.load(gates, mask=is_here, other=0)
        forget += tl.load(gates + WIDTH, mask=is_here, other=0)
        fresh += tl.load(gates + 2 * WIDTH, mask=is_here, other=0)
        out += tl.load(gates + 3 * WIDTH, mask=is_here, other=0)
        state = cell + row - step.to(tl.int64) * batch * WIDTH + unit[None, :]
        after = tl.load(state, mask=is_here, other=0)
        after = tl.sigmoid(forget) * after + tl.sigmoid(into) * (2 * tl.sigmoid(2 * fresh) - 1)
        tl.store(state, after, mask=is_here)
        answer = tl.sigmoid(out) * (2 * tl.sigmoid(2 * after) - 1)
        following = hidden + row + batch.to(tl.int64) * WIDTH + unit[None, :]
        tl.store(following, answer.to(hidden.dtype.element_ty), mask=is_here)


class FusedEncoder:
    """`model.Encoder` for batches of up to so many utterances of up to so many frames. One thread and stream use it."""

    def __init__(self, encoder: Encoder, most: int, frames: int) -> None:
        first = encoder.pre_rnn.lstm
        width, weight = first.hidden_size, cast(Tensor, first.weight_hh_l0)
        self._encoder, self._width = encoder, width
        self._projected = weight.new_empty(frames * most * 4 * width)
        self._hidden = [weight.new_empty((1 + frames) * most * width) for _ in range(2)]
        self._cell = torch.empty(most, width, dtype=torch.float32, device=weight.device)
        self._place = torch.zeros(3, dtype=torch.int32, device=weight.device)
        lstms = (encoder.pre_rnn.lstm, encoder.post_rnn.lstm)
        layers = [[self._layer(lstm, number, most) for number in range(lstm.num_layers)] for lstm in lstms]
        self._pre, self._post = layers

    def __call__(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `model.Encoder`. What is returned stays until the next call."""
        for layer in self._pre:
            x = layer(x)
        past = torch.arange(len(x), device=x.device)[:, None] >= lengths
        x = self._encoder.stacked(x.masked_fill(past[:, :, None], 0))
        for layer in self._post:
            x = layer(x)
        return x, (lengths + self._encoder.stack - 1) // self._encoder.stack

    def _layer(self, lstm: nn.LSTM, number: int, most: int) -> Callable[[Tensor], Tensor]:
        """[T, B, inputs] -> [T, B, width] of one layer. Its outputs stay until the next layer but one."""
        of_inputs, of_hidden, *biases = (getattr(lstm, f"{name}_l{number}") for name in _PARTS)
        weight, recurrent, bias = of_inputs.T, of_hidden.T.contiguous(), sum(biases)
        hidden, width = self._hidden[number % 2], self._width
        grid = (triton.cdiv(most, _ROWS), triton.cdiv(width, _UNITS))
        sizes = {"WIDTH": width, "ROWS": _ROWS, "UNITS": _UNITS, "INNER": _INNER}

        def steps() -> None:
            for step in range(STEPS):
                columns = (self._place, self._projected, recurrent, hidden, self._cell)
                _step[grid](*columns, step, **sizes, num_warps=_WARPS, num_stages=_STAGES)
            self._place[0] += STEPS

        replay = recorded(steps, recurrent.device)

        def run(x: Tensor) -> Tensor:
            time, batch, _ = x.shape
            projected = self._projected[: x[..., 0].numel() * 4 * width].view(-1, 4 * width)
            torch.addmm(bias, x.flatten(0, 1), weight, out=projected)
            hidden[: batch * width].zero_()
            self._cell.zero_()
            for at, value in enumerate((0, time, batch)):
                self._place[at] = value
            for _ in range(0, time, STEPS):
                replay()
            return hidden[batch * width : (1 + time) * batch * width].view(time, batch, width)

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
