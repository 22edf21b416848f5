"""`features.Featurizer` on a GPU: three kernels around PyTorch's Fourier transform. Triton interprets them too."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench_rnnt import features as constants
from bench_rnnt.pytorch.features import Featurizer

_FRAMES = 16  # of a program that cuts them out
_ROWS, _BINS = 64, 64  # frames of a program that filters them, and how many of their frequencies it takes at a time
_STEPS = 32  # joined frames that are normalised at a time


@triton.jit(do_not_specialize=["longest", "frames"])
def _windowed(
    waves,
    lengths,
    window,
    windowed,
    longest,
    frames,
    PREEMPHASIS: tl.constexpr,
    HOP: tl.constexpr,
    FFT: tl.constexpr,
    FRAMES: tl.constexpr,
):
    """Some frames of an utterance, which is continued on both sides by its mirror image, after pre-emphasis."""
    utterance = tl.program_id(0).to(tl.int64)
    frame, column = tl.program_id(1) * FRAMES + tl.arange(0, FRAMES), tl.arange(0, FFT)
    length = tl.load(lengths + utterance).to(tl.int32)
    at = tl.abs(frame[:, None] * HOP + column[None, :] - FFT // 2)
    at = tl.where(at < length, at, 2 * (length - 1) - at)
    is_inside = (at >= 0) & (at < length)
    wave = waves + utterance * longest
    here = tl.load(wave + at, mask=is_inside, other=0).to(tl.float32)
    before = tl.load(wave + at - 1, mask=is_inside & (at > 0), other=0).to(tl.float32)
    values = (here / 32768 - PREEMPHASIS * (before / 32768)) * tl.load(window + column)[None, :]
    place = (utterance * frames + frame)[:, None] * FFT + column[None, :]
    tl.store(windowed + place, values, mask=(frame < frames)[:, None])


@triton.jit(do_not_specialize=["count"])
def _log_mel(
    spectrum,
    filters,
    logs,
    count,
    FREQUENCIES: tl.constexpr,
    MEL: tl.constexpr,
    COLUMNS: tl.constexpr,
    POWER_FLOOR: tl.constexpr,
    LOG_FLOOR: tl.constexpr,
    ROWS: tl.constexpr,
    BINS: tl.constexpr,
):
    """spectrum: [count, FREQUENCIES, 2], real and imaginary parts. filters: [FREQUENCIES, MEL]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    bins, column = tl.arange(0, BINS), tl.arange(0, COLUMNS)
    is_row, is_column = (row < count)[:, None], (column < MEL)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, FREQUENCIES, BINS):
        frequency = first + bins
        is_bin = frequency < FREQUENCIES
        real = spectrum + (row[:, None] * FREQUENCIES + frequency[None, :]) * 2
        is_there = is_row & is_bin[None, :]
        re, im = tl.load(real, mask=is_there, other=0), tl.load(real + 1, mask=is_there, other=0)
        weight = filters + frequency[:, None] * MEL + column[None, :]
        weights = tl.load(weight, mask=is_bin[:, None] & is_column, other=0)
        total = tl.dot(re * re + im * im + POWER_FLOOR, weights, total, input_precision="tf32x3")
    tl.store(logs + row[:, None] * MEL + column[None, :], tl.log(total + LOG_FLOOR), mask=is_row & is_column)


@triton.jit
def _shifted(rows, base, frame, own_frames, is_step, is_column, MEL: tl.constexpr):
    """Log-mel values less `base` of some frames; a frame that is spliced in from behind the end is zero."""
    is_own = ((frame < own_frames) & is_step)[:, None] & is_column
    values = tl.load(rows + frame[:, None] * MEL, mask=is_own, other=0) - base
    return tl.where(is_step[:, None], values, 0)


@triton.jit(do_not_specialize=["frames", "batch", "steps"])
def _normalised(
    logs,
    lengths,
    normalised,
    frames,
    batch,
    steps,
    HOP: tl.constexpr,
    SPLICE: tl.constexpr,
    MEL: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEVIATION_FLOOR: tl.constexpr,
    STEPS: tl.constexpr,
):
    """One program joins every SPLICE-th frame of an utterance, from one of the first SPLICE on, and normalises them.

    normalised: [steps, batch, SPLICE * MEL]; zeros after an utterance's joined frames.
    """
    utterance, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths + utterance).to(tl.int32)
    own_frames = 1 + length // HOP
    joined = ((length + HOP - 1) // HOP + SPLICE - 1) // SPLICE
    column, step = tl.arange(0, COLUMNS), tl.arange(0, STEPS)
    is_column = (column < MEL)[None, :]
    rows = logs + utterance * frames * MEL + column[None, :]
    base = tl.load(rows + part * MEL, mask=is_column, other=0)  # sums of what is left lose no digits
    total = tl.zeros((COLUMNS,), tl.float32)
    for first in range(0, joined, STEPS):
        frame, is_step = (first + step) * SPLICE + part, first + step < joined
        total += tl.sum(_shifted(rows, base, frame, own_frames, is_step, is_column, MEL), 0)
    mean = total / joined
    total = tl.zeros((COLUMNS,), tl.float32)
    for first in range(0, joined, STEPS):
        frame, is_step = (first + step) * SPLICE + part, first + step < joined
        values = _shifted(rows, base, frame, own_frames, is_step, is_column, MEL) - mean[None, :]
        total += tl.sum(tl.where(is_step[:, None], values * values, 0), 0)
    scale = 1 / (tl.sqrt(total / (joined - 1)) + DEVIATION_FLOOR)
    for first in range(0, steps, STEPS):
        frame, is_step = (first + step) * SPLICE + part, first + step < joined
        values = _shifted(rows, base, frame, own_frames, is_step, is_column, MEL) - mean[None, :]
        values = tl.where(is_step[:, None], values * scale[None, :], 0)
        place = ((first + step).to(tl.int64)[:, None] * batch + utterance) * (SPLICE * MEL) + part * MEL
        is_place = (first + step < steps)[:, None] & is_column
        tl.store(normalised + place + column[None, :], values.to(normalised.dtype.element_ty), mask=is_place)


class FusedFeaturizer(Featurizer):
    """In the number format that comes next."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `Featurizer.forward`, but for the features' number format."""
        batch, longest = waves.shape
        frames, steps = 1 + longest // constants.HOP, constants.joined_frames(longest)
        columns = triton.next_power_of_2(constants.MEL)
        windowed = self.window.new_empty(batch, frames, constants.FFT)
        _windowed[(batch, triton.cdiv(frames, _FRAMES))](
            waves,
            lengths,
            self.window,
            windowed,
            longest,
            frames,
            PREEMPHASIS=constants.PREEMPHASIS,
            HOP=constants.HOP,
            FFT=constants.FFT,
            FRAMES=_FRAMES,
        )
        spectrum = torch.view_as_real(torch.fft.rfft(windowed))
        logs = self.window.new_empty(batch * frames, constants.MEL)
        _log_mel[(triton.cdiv(len(logs), _ROWS),)](
            spectrum,
            self.filters,
            logs,
            len(logs),
            FREQUENCIES=constants.FFT // 2 + 1,
            MEL=constants.MEL,
            COLUMNS=columns,
            POWER_FLOOR=constants.DITHER**2,
            LOG_FLOOR=constants.LOG_FLOOR,
            ROWS=_ROWS,
            BINS=_BINS,
        )
        x = torch.empty(steps, batch, constants.SPLICED, dtype=self._dtype, device=waves.device)
        _normalised[(batch, constants.SPLICE)](
            logs,
            lengths,
            x,
            frames,
            batch,
            steps,
            HOP=constants.HOP,
            SPLICE=constants.SPLICE,
            MEL=constants.MEL,
            COLUMNS=columns,
            DEVIATION_FLOOR=constants.DEVIATION_FLOOR,
            STEPS=_STEPS,
        )
        return x, constants.joined_frames(lengths)
