"""Greedy decoding on a GPU: rounds are recorded once (CUDA graphs) and replayed, ROUNDS at a time.

The processor launches the next replay before it knows what the last one has left to do, so the GPU never waits for it.
When few utterances still run, they move to a smaller recording.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench_rnnt.pytorch.decoding import ROUNDS, Greedy, Labels, State

_SHRINK = 2
"""Each recording takes so many times fewer utterances than the next larger one."""
_SMALLEST = 16


class Decoder:
    """`decoding.decode` for up to so many utterances of up to so many encoder frames. One thread uses it."""

    def __init__(self, greedy: Greedy, most: int, frames: int, labels: int, device: torch.device) -> None:
        """labels: the most that an utterance can have."""
        self._greedy = greedy
        # row `most` belongs to nobody: it is where the unused rows of a recording read and write
        self._frames = greedy.bias.new_zeros(most + 1, frames, len(greedy.bias))
        ids = torch.empty(most + 1, labels + 1, dtype=torch.int8, device=device)
        self._labels = Labels(ids, torch.zeros(most + 1, dtype=torch.int64, device=device))
        self._most = most
        self._recordings = [_Recording(self, size) for size in sizes(most)]

    def __call__(self, encoded: Tensor, lengths: Tensor) -> Labels:
        """See `decoding.decode`. Raises ValueError for a batch that is too large. The labels stay until the next."""
        time, count = encoded.shape[:2]
        if count > self._most or time > self._frames.shape[1]:
            raise ValueError(f"{count} utterances of {time} frames, {self._most} of {self._frames.shape[1]} fit")
        self._frames[:count, :time].copy_(self._greedy.project(encoded))
        at = max(n for n, recording in enumerate(self._recordings) if recording.size >= count)
        state = self._greedy.begin(lengths)
        self._recordings[at].fill(state)
        waiting = self._recordings[at].replay()
        while True:
            following = self._recordings[at].replay()
            running = waiting.read()
            if running == 0:
                return Labels(self._labels.ids[:count], self._labels.counts[:count])
            if at + 1 < len(self._recordings) and running <= self._recordings[at + 1].size:
                larger, at = self._recordings[at], at + 1
                self._recordings[at].fill(larger.still_running(self._recordings[at].size))
                following = self._recordings[at].replay()
            waiting = following

    def rounds(self, state: State) -> None:
        """What is recorded."""
        for _ in range(ROUNDS):
            self._greedy.round(self._frames, state, self._labels)
        self._labels.counts[state.rows] = state.count

    def nothing(self, size: int) -> State:
        """So many rows that belong to nobody, finished before they begin."""
        state = self._greedy.begin(torch.zeros(size, dtype=torch.int64, device=self._frames.device))
        state.rows.fill_(self._most)
        return state


def sizes(most: int) -> list[int]:
    """Of the recordings, the largest first."""
    found = [most]
    while found[-1] > _SMALLEST:
        found.append(-(-found[-1] // _SHRINK))
    return found


class _Recording:
    """ROUNDS rounds of up to `size` utterances, launched as one."""

    def __init__(self, decoder: Decoder, size: int) -> None:
        self.size = size
        self._empty, self._state = decoder.nothing(size), decoder.nothing(size)
        self._running = torch.zeros((), dtype=torch.int64, device=self._state.time.device)

        def rounds() -> None:
            decoder.rounds(self._state)
            self._running.copy_((self._state.time < self._state.lengths).sum())

        self._replay = recorded(rounds, self._running.device)

    def fill(self, state: State) -> None:
        """Begin with these utterances; the other rows belong to nobody."""
        self._state.copy_(self._empty)
        self._state.copy_(state)

    def replay(self) -> _Count:
        self._replay()
        return _Count(self._running)

    def still_running(self, size: int) -> State:
        """This many rows, all that still run among them."""
        is_finished = (self._state.time >= self._state.lengths).to(torch.int8)
        return self._state.take(is_finished.argsort(stable=True)[:size])


def recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Launches the work's kernels as one. A CPU, which the tests use, just does the work."""
    if device.type == "cpu":
        return work
    stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):  # outside of the recording: chooses kernels, and takes its memory
        work()
    torch.cuda.synchronize(device)
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    replay: Callable[[], None] = graph.replay
    return replay


class _Count:
    """A number on its way from the GPU."""

    def __init__(self, number: Tensor) -> None:
        self._ready: Any = None
        self._value = number.clone()
        if number.device.type == "cuda":
            self._value = torch.empty_like(number, device="cpu", pin_memory=True).copy_(number, non_blocking=True)
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record()

    def read(self) -> int:
        if self._ready is not None:
            self._ready.synchronize()
        return int(self._value)
