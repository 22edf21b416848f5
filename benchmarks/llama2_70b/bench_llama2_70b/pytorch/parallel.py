"""One model on several devices (tensor parallel): each rank has a share of every layer's heads and channels.

Every rank is an engine of its own with the same requests, in a process of its own but for the first. They plan alike,
so what goes from the first to the others is only what it is asked: `add` these, `step`.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import Tensor

_WAIT = timedelta(minutes=10)
"""For another rank, which may still be reading its weights."""


@dataclass(frozen=True)
class Share:
    """Which part of the layers is here."""

    rank: int = 0
    count: int = 1

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all ranks, in place, on each of them."""
        if self.count > 1:
            dist.all_reduce(x)
        return x

    def agreed(self, x: Tensor) -> Tensor:
        """What the first rank has, on each of them."""
        if self.count > 1:
            x = x.contiguous()
            dist.broadcast(x, 0)
        return x


ALONE = Share()


class Follower(Protocol):
    """A rank, as the others see it."""

    def add(self, requests: Any, prompts: Any) -> None: ...

    def step(self, timeout_s: float) -> Any: ...


class Ranks:
    """The ranks after the first, each in a process."""

    def __init__(self, build: Callable[[Share], Follower], count: int, on_gpus: bool) -> None:
        """build: makes a rank; it is called in its process, so it must be what Python can pickle."""
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
        meeting = Path(self._folder.name) / "meeting"
        context = processes.get_context("spawn")
        self._pipes: list[Connection] = []
        self._children = []
        for rank in range(1, count):
            ours, theirs = context.Pipe()
            job = (theirs, build, Share(rank, count), meeting, on_gpus)
            child = context.Process(target=_follow, args=job, name=f"rank {rank}", daemon=True)
            child.start()
            theirs.close()
            self._pipes.append(ours)
            self._children.append(child)
        join(Share(0, count), meeting, on_gpus)

    def tell(self, *order: Any) -> None:
        """Every rank does the same at once. Raises RuntimeError with the traceback of one that has failed."""
        for number, pipe in enumerate(self._pipes, 1):
            try:
                if pipe.poll():
                    raise RuntimeError(f"rank {number} failed:\n{pipe.recv()}")
                pipe.send(order)
            except (OSError, EOFError) as error:
                raise RuntimeError(f"rank {number} has gone: was its process killed, for want of memory?") from error

    def close(self) -> None:
        """Ends the processes."""
        for pipe in self._pipes:
            pipe.close()  # its end is what they wait for
        for child in self._children:
            child.join(10)
            child.kill()
        if dist.is_initialized():
            dist.destroy_process_group()
        self._folder.cleanup()


def join(share: Share, meeting: Path, on_gpus: bool) -> None:
    """Meet the other ranks: by NCCL on GPUs, by Gloo on CPUs. meeting: a file that all can write."""
    place = f"file://{meeting}"
    kind = "nccl" if on_gpus else "gloo"
    dist.init_process_group(kind, init_method=place, rank=share.rank, world_size=share.count, timeout=_WAIT)


def _follow(pipe: Connection, build: Callable[[Share], Follower], share: Share, meeting: Path, on_gpus: bool) -> None:
    try:
        if on_gpus:
            torch.cuda.set_device(share.rank)
        join(share, meeting, on_gpus)
        rank = build(share)
        while True:
            name, *values = pipe.recv()
            getattr(rank, name)(*values)
    except EOFError:  # the first rank has closed, or is gone
        return
    except BaseException:
        pipe.send("".join(traceback.format_exc()))
        raise
