"""The copies of a model that a run uses: in threads, in processes of this machine, or as Ray replicas."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from loadgen.contracts import Backend, BackendOptions, InputError

KINDS = ("thread", "process")


@dataclass(frozen=True)
class Workers:
    """What the command line says of workers."""

    count: int = 1
    kind: str = "thread"
    """`process` is for a runtime that keeps Python's global lock while it computes."""
    replicas: int = 0
    """Ray actors in place of workers here; 0: no Ray."""
    ray_address: str = "local"
    """auto, ray://host:port or host:port of a cluster, or local: start one on this machine."""

    def __str__(self) -> str:
        """For the record of a run."""
        return f"{self.replicas} Ray replicas" if self.replicas else f"{self.count} {self.kind}"

    def __post_init__(self) -> None:
        if self.replicas and (self.count > 1 or self.kind != "thread"):
            raise InputError("--replicas are the workers: leave out --workers and --worker-kind")
        if self.ray_address != "local" and not self.replicas:
            raise InputError(f"--ray-address {self.ray_address} needs --replicas N: how many copies of the model?")


def share(options: BackendOptions, count: int) -> list[BackendOptions]:
    """What each of `count` workers is built from: a device each, or a share of the processor's threads."""
    if count == 1:
        return [options]
    if options.device == "cuda":
        return [replace(options, device=f"cuda:{number}") for number in range(count)]
    threads = max(1, options.threads // count) if options.threads else 0
    return [replace(options, threads=threads)] * count


@contextlib.contextmanager
def opened(
    workers: Workers, dotted: str, options: BackendOptions, found: Callable[[], Callable[[BackendOptions], Backend]]
) -> Iterator[Sequence[Backend]]:
    """Loaded backends, closed at the end. dotted: their "module:Class"; found: imports it, for workers in threads.

    Raises InputError for files, devices or packages that are not there, in words also if that was elsewhere.
    """
    with contextlib.ExitStack() as stack:
        backends: Sequence[Backend]
        if workers.replicas:
            from loadgen.harness.workers.ray_replicas import joined  # imports Ray

            backends = stack.enter_context(joined(dotted, options, workers.replicas, workers.ray_address))
        elif workers.kind == "process":
            from loadgen.harness.workers.backend import ProcessBackend  # Linux only

            shares = share(options, workers.count)
            backends = [ProcessBackend(dotted, one, f"worker {number}") for number, one in enumerate(shares)]
        else:
            backends = [found()(one) for one in share(options, workers.count)]
        for backend in backends:
            stack.callback(backend.close)
        _load(backends, at_once=bool(workers.replicas) or workers.kind == "process")
        yield backends


def _load(backends: Sequence[Backend], at_once: bool) -> None:
    """In one process one after the other: frameworks set global things while they load."""
    pool = ThreadPoolExecutor(len(backends) if at_once else 1, "load")
    try:
        for loaded in [pool.submit(backend.load) for backend in backends]:
            loaded.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # closing the backends ends what still loads
