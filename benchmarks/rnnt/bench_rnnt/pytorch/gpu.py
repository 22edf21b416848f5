"""A stream of batches through one GPU, which the processor never waits for.

While a batch is encoded, the next one's waveforms are collected in page-locked memory and copied, and the one before is
decoded: encoding has many small steps one after another, and decoding needs few of the GPU's processors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench_rnnt.dataset import Batch
from bench_rnnt.postprocess import Labels as Answer
from bench_rnnt.pytorch.decoding import Labels

_SLOTS = 3
"""Batches on the way: one decoded, one encoded, one collected."""
_COLLECTORS = 4
"""Threads that copy waveforms: one copies 4 GB/s, and 8,000 utterances have 1.6 GB."""

_UNITS = 64
"""LSTMs on a GPU have a multiple of so many. In float16 cuDNN 9.19 computed 104, 112 and 120 wrongly on an H200, in
batches of 16 and more; 64, 96, 128, 320, 1,000 and 1,024 were right."""

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""int16 [B, N] and lengths [B] in samples, on the GPU -> what is decoded, [T, B, any], and lengths [B] in frames."""
Decode = Callable[[Tensor, Tensor], Labels]


class Filled(nn.Module):
    """An LSTM with more units, which have no weights, and so stay zero."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self._hidden, width = lstm.hidden_size, -(-lstm.hidden_size // _UNITS) * _UNITS
        self._lstm = nn.LSTM(lstm.input_size, width, lstm.num_layers)
        for name, value in self._lstm.named_parameters():
            given = lstm.get_parameter(name).detach()
            gates = given.view(4, self._hidden, *given.shape[1:])
            columns = [0, value.shape[1] - given.shape[1]] if given.dim() > 1 else []
            value.data.copy_(nn.functional.pad(gates, [*columns, 0, width - self._hidden]).flatten(0, 1))
        self._lstm.to(given.device, given.dtype)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As `nn.LSTM`; the state has all units."""
        outputs, state = self._lstm(x, state)
        return outputs[..., : self._hidden], state


def fill(encoder: nn.Module) -> None:
    """Its LSTMs, in place."""
    for part in encoder.children():
        lstm = part.get_submodule("lstm")
        assert isinstance(lstm, nn.LSTM)
        if lstm.hidden_size % _UNITS:
            part.add_module("lstm", Filled(lstm))


class Pipeline:
    """One thread calls `submit`; it waits for the GPU only if `_SLOTS` batches are under way."""

    def __init__(self, encode: Encode, decode: Decode, device: torch.device, samples: int) -> None:
        """samples: of a batch, padded; room is made for so many, and for more when they come."""
        self._encode, self._decode, self._device = encode, decode, device
        self._copying, self._decoding = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]
        self._slots = [_Slot(samples) for _ in range(_SLOTS)]
        self._turn = 0
        self._collectors = ThreadPoolExecutor(_COLLECTORS, "collector")
        self._waiter = ThreadPoolExecutor(1, "gpu-answers")

    def submit(self, batch: Batch) -> Future[list[Answer]]:
        """The future of each utterance's labels."""
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % _SLOTS
        slot.wait()
        waves, samples = slot.collect(batch, self._collectors), _on_host(torch.from_numpy(batch.lengths))
        with torch.cuda.device(self._device):
            encoded, lengths = self._encode(*self._copied(waves, samples))
            labels = self._decoded(encoded, lengths)
            slot.done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            slot.done.record(self._decoding)
        return self._waiter.submit(_finish, slot.done, labels)

    def _copied(self, *columns: Tensor) -> list[Tensor]:
        """On the GPU, for its current stream."""
        own: Any = torch.cuda.current_stream()
        with torch.cuda.stream(self._copying):
            there = [column.to(self._device, non_blocking=True) for column in columns]
        own.wait_stream(self._copying)
        for column in there:
            column.record_stream(own)
        return there

    def _decoded(self, encoded: Tensor, lengths: Tensor) -> Labels:
        """In page-locked memory, once the decoding stream has come so far."""
        self._decoding.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._decoding):
            labels = self._decode(encoded, lengths)
            for tensor in (encoded, lengths):
                tensor.record_stream(self._decoding)
            return Labels(_on_host(labels.ids), _on_host(labels.counts))

    def close(self) -> None:
        """Waits for what is under way."""
        self._waiter.shutdown()
        self._collectors.shutdown()


def _finish(done: Any, labels: Labels) -> list[Answer]:
    done.synchronize()
    ids, counts = labels.ids.numpy(), labels.counts.tolist()
    return [row[:count].copy() for row, count in zip(ids, counts, strict=True)]


def _on_host(values: Tensor) -> Tensor:
    """A copy in page-locked memory; of a GPU's values it is complete once the stream has come so far."""
    return _page_locked(values.shape, values.dtype).copy_(values, non_blocking=True)


def _page_locked(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory that a GPU copies by itself; PyTorch keeps what is freed, as it is slow to get."""
    return torch.empty(shape, dtype=dtype, pin_memory=torch.cuda.is_available())


class _Slot:
    """Page-locked memory of one batch on its way."""

    def __init__(self, samples: int) -> None:
        self._memory = _page_locked((samples,), torch.int16)
        self.done: Any = None

    def wait(self) -> None:
        """Until the last batch has been read from here."""
        if self.done is not None:
            self.done.synchronize()

    def collect(self, batch: Batch, threads: ThreadPoolExecutor) -> Tensor:
        """[n, longest of the batch], zeros after an utterance's end."""
        count, longest = len(batch.waves), int(batch.lengths.max())
        if len(self._memory) < count * longest:
            self._memory = _page_locked((count * longest,), torch.int16)
        rows = self._memory[: count * longest].view(count, longest)
        begins = np.linspace(0, count, _COLLECTORS + 1).astype(int).tolist()

        def copy(low: int, high: int) -> None:
            Batch(batch.waves[low:high]).collect(rows[low:high].numpy())

        list(threads.map(copy, begins, begins[1:]))
        return rows
