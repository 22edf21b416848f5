"""The copies of a model that a run uses: in threads, in processes of this machine, or as Ray replicas."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic

from loadgen.contracts import B, Backend, BackendOptions, InputError, Loaded, O
from loadgen.harness.workers.backend import ProcessBackend
from loadgen.harness.workers.loading import package_named


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
    gpus_per_worker: int = 1
    """More than one: each copy of the model is spread over so many."""

    def __str__(self) -> str:
        """For the record of a run."""
        said = f"{self.replicas} Ray replicas" if self.replicas else f"{self.count} {self.kind}"
        return said if self.gpus_per_worker == 1 else f"{said}, {self.gpus_per_worker} GPUs each"

    def __post_init__(self) -> None:
        if self.replicas and (self.count > 1 or self.kind != "thread"):
            raise InputError("--replicas takes the place of --workers and --worker-kind: leave them out")
        if self.ray_address != "local" and not self.replicas:
            raise InputError(f"--ray-address {self.ray_address} needs --replicas N: how many copies of the model?")


@dataclass(frozen=True)
class Opened(Generic[B, O]):
    """The workers' backends, ready to compute."""

    backends: tuple[Backend[B, O], ...]
    loaded: tuple[Loaded, ...]
    """What each of them loaded."""


def share(options: BackendOptions, workers: Workers) -> list[BackendOptions]:
    """What each worker is built from: devices of its own, or a share of the processor's threads.

    Raises InputError where devices are asked for that cannot be given out."""
    count, gpus = workers.replicas or workers.count, workers.gpus_per_worker
    if gpus > 1 and options.devices != ("cuda",):
        raise InputError(f"--gpus-per-worker {gpus} needs --device cuda, not {', '.join(options.devices)}")
    if workers.replicas:
        return [_in_replica(options, gpus)] * count
    if options.devices == ("cuda",) and count * gpus > 1:
        return [replace(options, devices=_cuda(gpus * number, gpus)) for number in range(count)]
    threads = max(1, options.threads // count) if options.threads else 0
    return [replace(options, threads=threads)] * count


def _in_replica(options: BackendOptions, gpus: int) -> BackendOptions:
    """Ray shows each replica its own GPUs alone, and these count from 0."""
    if not options.device.startswith("cuda"):
        return options
    if options.devices != ("cuda",):
        raise InputError(f"--device {', '.join(options.devices)}: Ray chooses the GPUs of a replica, use --device cuda")
    return replace(options, devices=_cuda(0, gpus))


def _cuda(first: int, count: int) -> tuple[str, ...]:
    return tuple(f"cuda:{number}" for number in range(first, first + count))


@contextlib.contextmanager
def opened(
    workers: Workers,
    dotted: str,
    options: BackendOptions,
    found: Callable[[], Callable[[BackendOptions], Backend[B, O]]],
    install: str = "",
) -> Iterator[Opened[B, O]]:
    """Loaded backends, closed at the end.

    dotted: their "module:Class"; found: imports it, for workers in threads; install: the folder and extra that bring
    its packages, such as "./benchmarks/bert[pytorch]". Raises InputError as a backend does, and for packages that are
    not there; what else a child or replica raises is a WorkerError here, with the traceback as its cause.
    """
    shares = share(options, workers)
    with contextlib.ExitStack() as stack:
        backends: Sequence[Backend[B, O]]
        if workers.replicas:
            from loadgen.harness.workers.ray_replicas import joined  # imports Ray

            backends = stack.enter_context(joined(dotted, shares, workers.ray_address, install))
        elif workers.kind == "process":
            backends = [ProcessBackend(dotted, one, f"worker {k}", install=install) for k, one in enumerate(shares)]
        else:
            with package_named(dotted, install):
                backends = [found()(one) for one in shares]
        for backend in backends:
            stack.callback(backend.close)
        with package_named(dotted, install):
            loaded = _load(backends, at_once=bool(workers.replicas) or workers.kind == "process")
        yield Opened(tuple(backends), loaded)


def _load(backends: Sequence[Backend[Any, Any]], at_once: bool) -> tuple[Loaded, ...]:
    """In one process one after the other: frameworks set global things while they load."""
    pool = ThreadPoolExecutor(len(backends) if at_once else 1, "load")
    try:
        return tuple([loading.result() for loading in [pool.submit(backend.load) for backend in backends]])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # closing the backends ends what still loads
