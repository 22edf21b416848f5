"""A GPU's steps: the network is the fused one, and the steps of all beams are recorded and launched as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench_gpt_j.pytorch.fused import Fused

if TYPE_CHECKING:
    from bench_gpt_j.pytorch.engine import Engine


class Gpu:
    """Computes for an engine."""

    def __init__(self, engine: Engine) -> None:
        self.network = Fused(engine.model, engine.cache)
        self._engine = engine
        self._recorded: dict[int, Any] = {}

    def record(self, sizes: list[int]) -> None:
        """CUDA: record the kernels of a step of so many slots. Launching them one by one takes longer than computing
        them. No search may run."""
        pool: Any = torch.cuda.graph_pool_handle()  # one runs at a time, so all may use the same memory
        for size in sorted(sizes, reverse=True):
            stream: Any = torch.cuda.Stream(self._engine.device)  # type: ignore[no-untyped-call]
            with torch.inference_mode(), torch.cuda.stream(stream):
                self._compute(size)  # outside of the recording: takes its memory, and compiles
            torch.cuda.synchronize(self._engine.device)
            graph: Any = torch.cuda.CUDAGraph()
            with torch.inference_mode(), torch.cuda.graph(graph, pool=pool):
                self._compute(size)
            self._recorded[size] = graph

    def extend(self, rows: int) -> None:
        """One step of the first `rows` slots, by the smallest recording that fits; it changes those that run."""
        fits = [size for size in self._recorded if size >= rows]
        if fits:
            self._recorded[min(fits)].replay()
        else:
            self._compute(rows)

    def _compute(self, rows: int) -> None:
        engine, beams = self._engine, self._engine.beams
        slots = torch.arange(rows, device=engine.device)
        places = engine.places(slots)
        positions = (beams.prompt[:rows] + beams.made[:rows] - 1).clamp(min=0)
        lengths = torch.where(beams.running[:rows], places[:, -1] + 1, 0).int()
        columns = (beams.last(slots), positions[:, None].expand_as(places), slots[:, None].expand_as(places), places)
        tokens, positions, of_slots, places = (x.flatten().int() for x in columns)
        hidden = self.network.extend(tokens, positions, of_slots, places, lengths)
        engine.choose(slots, engine.model.logits(hidden).view(rows, beams.count, -1))

    def later(self, columns: Tensor) -> Callable[[], Any]:
        """Copy to the host while it goes on; the call waits for the copy."""
        if columns.device.type == "cpu":
            return columns.numpy
        there = torch.empty(columns.shape, dtype=columns.dtype, pin_memory=True)
        there.copy_(columns, non_blocking=True)
        done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()

        def read() -> Any:
            done.synchronize()
            return there.numpy()

        return read
