"""Models that tests run in other processes and on other nodes: each squares numbers, or does one thing wrong."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np

from loadgen.contracts import BackendOptions, InputError, Loaded


class Squares:
    """options.extra: `bad` is a number that it fails on, `die` one that kills its process, `seconds` a batch takes."""

    def __init__(self, options: BackendOptions) -> None:
        self.options, self.extra = options, options.extra
        if "refuse" in self.extra:
            raise InputError("dtype 'int3': use float32")

    def load(self) -> Loaded:
        if "die" in self.extra and self.extra["die"] is None:
            os._exit(7)
        if "break" in self.extra:
            raise ValueError("no memory for that")
        devices = "+".join(self.options.devices)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return Loaded(f"{devices} with {self.options.threads} threads", "int64", {"visible": visible})

    def submit(self, batch: Any) -> Future[Any]:
        """A finished future."""
        future: Future[Any] = Future()
        future.set_result(self.predict(batch))
        return future

    def predict(self, batch: Any) -> Any:
        time.sleep(self.extra.get("seconds", 0))
        if self.extra.get("die") in batch:
            os._exit(7)
        if self.extra.get("bad") in batch:
            raise RuntimeError("no square for that")
        batch *= batch  # fails on an array that cannot be written
        return batch

    def close(self) -> None:
        if "closed" in self.extra:
            self.extra["closed"].write_text("closed")


class Later(Squares):
    """Answers from a thread of its own, some time after `submit`."""

    def submit(self, batch: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(self.predict(batch))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=work).start()
        return future


class Where(Squares):
    """Answers with the process that computed, for each sample."""

    def predict(self, batch: Any) -> Any:
        time.sleep(self.extra.get("seconds", 0))
        return np.full(len(batch), os.getpid())


class Unsendable(Squares):
    """Its outputs cannot leave the process."""

    def predict(self, batch: Any) -> Any:
        return threading.Lock()


class OwnError(Exception):
    """Cannot be made again from its pickle."""

    def __init__(self, code: int, place: str) -> None:
        super().__init__(f"error {code} at {place}")


class RaisesItsOwn(Squares):
    def predict(self, batch: Any) -> Any:
        raise OwnError(5, "the valve")


class NeedsFramework(Squares):
    def load(self) -> Loaded:
        import no_such_framework  # type: ignore[import-not-found]

        return Loaded(no_such_framework.name, "float32")


class MissesItsOwnModule(Squares):
    def load(self) -> Loaded:
        import worker_models.parts  # type: ignore[import-not-found]

        return Loaded(worker_models.parts.name, "float32")
