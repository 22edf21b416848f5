"""Replicas of a model on one or more machines, as Ray actors. The only module that imports Ray.

Each replica is a `Backend`, and a worker of the batching system as any other: it pulls batches, so the least
busy one gets the next. Samples are read and gathered here; every node needs the packages, and the folder of the
model at the same path.
"""

from __future__ import annotations

import contextlib
import copy
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeVar

from loadgen.contracts import B, Backend, BackendOptions, InputError, Loaded, O
from loadgen.harness.workers.failure import Failure, WorkerError
from loadgen.harness.workers.loading import load_here

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayError
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
except ModuleNotFoundError as error:
    raise InputError("--replicas needs Ray, which is not installed: pip install './loadgen[ray]'") from error

_CONNECT_S = 5.0
_PLACE_S = 30.0  # how long to wait for free processors and devices
_LOAD_S = 3600.0  # the largest models take tens of minutes from a slow disk
_CLOSE_S = 10.0

T = TypeVar("T")


@contextlib.contextmanager
def joined(
    dotted: str,
    shares: Sequence[BackendOptions],
    address: str,
    install: str = "",
    *,
    place_timeout_s: float = _PLACE_S,
) -> Iterator[Sequence[RayBackend[Any, Any]]]:
    """A replica of the backend "module:Class" for each of `shares`, all alike, spread over the cluster at `address`,
    still to be loaded. install: see `loading.package_named`.

    Raises InputError if there is no such cluster, or no room in it within `place_timeout_s`.
    """
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(address)
    try:
        need = _need(shares[0])
        group = placement_group([need] * len(shares), strategy="SPREAD")
        try:
            if not group.wait(place_timeout_s):
                raise InputError(_no_room(len(shares), need, place_timeout_s))
            yield [_replica(dotted, one, install, number, group) for number, one in enumerate(shares)]
        finally:
            remove_placement_group(group)
    finally:
        if is_ours:
            ray.shutdown()


def _need(options: BackendOptions) -> dict[str, float]:
    """What a replica takes of its node, by Ray's names."""
    gpus = sum(device.startswith("cuda") for device in options.devices)
    return {"CPU": float(options.threads or 1), **({"GPU": float(gpus)} if gpus else {})}


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a benchmark tells nobody about its runs
    advice = "start a cluster with `ray start --head`, or use --ray-address local"
    starts = {"include_dashboard": False} if address == "local" else {}
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        ray.init(address, logging_level="ERROR", log_to_driver=False, configure_logging=False, **starts)
    except ImportError as error:
        raise InputError(f"--ray-address {address}: pip install 'ray[client]', or write host:port") from error
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"--ray-address {address}: no Ray cluster can be reached ({first}): {advice}") from error


def _no_room(count: int, need: Mapping[str, float], waited_s: float) -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    wanted = ", ".join(f"{value * count:g} {name}" for name, value in need.items())
    found = ", ".join(f"{total.get(name, 0):g} {name} ({free.get(name, 0):g} free)" for name in need)
    nodes = sum(node["Alive"] for node in ray.nodes())
    return (
        f"{count} replicas need {wanted}; the Ray cluster of {nodes} nodes has {found}, and no room after "
        f"{waited_s:g} s: lower --replicas or --threads, or add nodes"
    )


def _files(folder: Path) -> dict[str, int] | None:
    """Sizes of the files below a folder; None if it is not there."""
    if not folder.is_dir():
        return None
    return {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}


def _replica(dotted: str, options: BackendOptions, install: str, number: int, group: Any) -> RayBackend[Any, Any]:
    """Start one, in its place of the placement group."""
    need = _need(options)
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
    # two threads: a backend whose futures come later may get its second batch while it computes the first
    wanted = {"max_concurrency": 2, "num_cpus": need["CPU"], "num_gpus": need.get("GPU", 0)}
    actor = ray.remote(**wanted, scheduling_strategy=place)(_Replica)
    return RayBackend(actor.remote(dotted, options, install, _files(options.model)), number)


class RayBackend(Generic[B, O]):
    """See `loadgen.contracts.Backend`: a handle of one replica. Its arrays arrive as writable copies."""

    def __init__(self, actor: Any, number: int) -> None:
        """actor: Ray's handle of a `_Replica`."""
        self.name, self._number, self._actor = f"replica {number}", number, actor
        self.node_id = ""
        """Ray's name of the node that the replica is on, once it is loaded."""

    def load(self) -> Loaded:
        """Wait until the replica has its model. Raises InputError or WorkerError, naming the node."""
        try:
            address, self.node_id = ray.get(self._actor.where.remote(), timeout=_LOAD_S)
            self.name = f"replica {self._number} on node {address} ({self.node_id[:8]})"
            found: Loaded | Failure = ray.get(self._actor.load.remote(), timeout=_LOAD_S)
        except GetTimeoutError as error:
            raise WorkerError(f"{self.name} did not load its model within {_LOAD_S:g} s") from error
        except RayError as error:
            raise self._lost(error) from error
        return self._good(found)

    def submit(self, batch: B) -> Future[O]:
        """The future fails with WorkerError if the replica dies."""
        answer: Future[O] = Future()

        def arrived(done: Future[O | Failure]) -> None:
            try:
                answer.set_result(self._good(done.result()))
            except RayError as error:
                answer.set_exception(self._lost(error))
            except Exception as error:  # what the replica raised
                answer.set_exception(error)

        self._actor.predict.remote(batch).future().add_done_callback(arrived)
        return answer

    def close(self) -> None:
        """Ends the replica's process, in any case."""
        with contextlib.suppress(RayError):
            ray.get(self._actor.close.remote(), timeout=_CLOSE_S)
        with contextlib.suppress(RayError):
            ray.kill(self._actor)

    def _good(self, found: T | Failure) -> T:
        if isinstance(found, Failure):
            raise found.error(self.name)
        return found

    def _lost(self, error: RayError) -> WorkerError:
        """Ray's errors carry pages of stack; ours is one line that names the replica, with Ray's as its cause."""
        lines = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        said = f" died: {lines}" if isinstance(error, RayActorError) else f": {type(error).__name__}: {lines}"
        lost = WorkerError(self.name + said)
        lost.__cause__ = error
        return lost


class _Replica:
    """The actor: lives on a node, holds the real backend. What its backend raises is returned, as a `Failure`: Ray
    passes on only exceptions whose class it can send."""

    def __init__(self, dotted: str, options: BackendOptions, install: str, files: Mapping[str, int] | None) -> None:
        self._dotted, self._options, self._install, self._expected = dotted, options, install, files
        self._submitting = threading.Lock()
        self._backend: Backend[Any, Any] | None = None

    def where(self) -> tuple[str, str]:
        """(address, id) of the node."""
        return ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id()

    def load(self) -> Loaded | Failure:
        """An InputError among the failures names what this node lacks."""
        try:
            self._check_files()
            self._backend, loaded = load_here(self._dotted, self._options, self._install)
        except Exception as error:
            return Failure.of(error)
        return loaded

    def _check_files(self) -> None:
        folder = self._options.model
        found = _files(folder)
        if self._expected is None:
            return
        if found is None:
            raise InputError(f"{folder} is not there: every node needs the model's folder at the same path")
        for name, size in self._expected.items():
            if found.get(name) != size:
                has = f"has {found[name]} bytes" if name in found else "is missing"
                raise InputError(f"{folder / name} {has}, {size} where the run was started: copy it to this node")

    def predict(self, batch: Any) -> Any:
        """Outputs, or a `Failure`."""
        assert self._backend is not None
        try:
            batch = copy.deepcopy(batch)  # arrays come as read-only views of Ray's store
            with self._submitting:
                future = self._backend.submit(batch)
            return future.result()
        except Exception as error:
            return Failure.of(error)

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()
