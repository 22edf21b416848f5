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
from typing import Any

from loadgen.contracts import Backend, BackendOptions, InputError
from loadgen.harness.workers.loading import load_here

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
except ModuleNotFoundError as error:
    raise InputError("--replicas needs Ray, which is not installed: pip install './loadgen[ray]'") from error

_CONNECT_S = 5.0
_PLACE_S = 30.0  # how long to wait for free processors and devices
_LOAD_S = 3600.0  # the largest models take tens of minutes from a slow disk
_CLOSE_S = 10.0


class ReplicaError(RuntimeError):
    """A replica died or failed. The message names it and its node."""


@contextlib.contextmanager
def joined(
    dotted: str, options: BackendOptions, count: int, address: str, place_timeout_s: float = _PLACE_S
) -> Iterator[Sequence[Backend]]:
    """`count` replicas of the backend "module:Class", spread over the cluster at `address`, still to be loaded.

    Raises InputError if there is no such cluster, or no room in it within `place_timeout_s`.
    """
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(address)
    try:
        need = {"CPU": float(options.threads or 1), **({"GPU": 1.0} if options.device.startswith("cuda") else {})}
        group = placement_group([need] * count, strategy="SPREAD")
        try:
            if not group.wait(place_timeout_s):
                raise InputError(_no_room(count, need, place_timeout_s))
            yield [RayBackend(dotted, options, number, need, group) for number in range(count)]
        finally:
            remove_placement_group(group)
    finally:
        if is_ours:
            ray.shutdown()


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


class RayBackend:
    """See `loadgen.contracts.Backend`: a handle of one replica. Its arrays arrive as writable copies."""

    def __init__(
        self, dotted: str, options: BackendOptions, number: int, need: Mapping[str, float], group: Any
    ) -> None:
        self.name, self.device_name, self._number = f"replica {number}", options.device, number
        self.node_id = ""
        """Ray's name of the node that the replica is on, once it is loaded."""
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
        wanted = {"num_cpus": need["CPU"], "num_gpus": need.get("GPU", 0), "scheduling_strategy": place}
        # two threads: a backend whose futures come later may get its second batch while it computes the first
        self._actor = ray.remote(max_concurrency=2, **wanted)(_Replica).remote(dotted, options, _files(options.model))

    def load(self) -> None:
        """Wait until the replica has its model. Raises InputError, naming the node, or ReplicaError."""
        try:
            address, self.node_id = ray.get(self._actor.where.remote(), timeout=_LOAD_S)
            self.name = f"replica {self._number} on node {address} ({self.node_id[:8]})"
            self.device_name = ray.get(self._actor.load.remote(), timeout=_LOAD_S)
        except GetTimeoutError as error:
            raise ReplicaError(f"{self.name} did not load its model within {_LOAD_S:g} s") from error
        except RayError as error:
            raise self._explained(error) from error

    def submit(self, batch: Any) -> Future[Any]:
        """The future fails with ReplicaError if the replica dies."""
        answer: Future[Any] = Future()

        def arrived(done: Future[Any]) -> None:
            error = done.exception()
            if error is None:
                answer.set_result(done.result())
            else:
                answer.set_exception(self._explained(error))

        self._actor.predict.remote(batch).future().add_done_callback(arrived)
        return answer

    def close(self) -> None:
        """Ends the replica's process, in any case."""
        with contextlib.suppress(RayError):
            ray.get(self._actor.close.remote(), timeout=_CLOSE_S)
        with contextlib.suppress(RayError):
            ray.kill(self._actor)

    def _explained(self, error: BaseException) -> Exception:
        """Ray's errors carry pages of stack; ours one line that names the replica."""
        if isinstance(error, RayTaskError):
            cause = error.cause
            if isinstance(cause, InputError):
                return InputError(f"{self.name}: {cause}")
            return ReplicaError(f"{self.name}: {type(cause).__name__}: {cause}")
        if isinstance(error, RayActorError):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return ReplicaError(f"{self.name} died: {' '.join(lines)}")
        return ReplicaError(f"{self.name}: {type(error).__name__}: {error}")


class _Replica:
    """The actor: lives on a node, holds the real backend."""

    def __init__(self, dotted: str, options: BackendOptions, files: Mapping[str, int] | None) -> None:
        self._dotted, self._options, self._expected = dotted, options, files
        self._submitting = threading.Lock()
        self._backend: Backend | None = None

    def where(self) -> tuple[str, str]:
        """(address, id) of the node."""
        return ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id()

    def load(self) -> str:
        """The name of the device in use. Raises InputError that names what this node lacks."""
        self._check_files()
        self._backend = load_here(self._dotted, self._options)
        return str(getattr(self._backend, "device_name", self._options.device))

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
        assert self._backend is not None
        batch = copy.deepcopy(batch)  # arrays come as read-only views of Ray's store
        with self._submitting:
            future = self._backend.submit(batch)
        return future.result()

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()
