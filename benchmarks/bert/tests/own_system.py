"""A system of your own: each sample goes to the device alone, and is answered when it is ready."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from loadgen.contracts import Backend, Dataset, Encode, Ints, Responder
from loadgen.harness.serving import Batching


class System:
    def __init__(
        self,
        name: str,
        backends: Sequence[Backend[Any, Any]],
        dataset: Dataset[Any],
        encode: Encode[Any],
        batching: Batching,
    ) -> None:
        self.name, self.backend, self.dataset, self.encode = name, backends[0], dataset, encode

    def start(self, respond: Responder) -> None:
        self.respond = respond
        self.thread = ThreadPoolExecutor(1)

    def issue(self, ids: Ints, indices: Ints) -> None:  # the clock is running: return soon
        for number, index in zip(np.atleast_1d(ids), np.atleast_1d(indices), strict=True):
            self.thread.submit(self.answer, int(number), np.array([index]))

    def answer(self, number: int, index: Any) -> None:
        try:
            outputs = self.backend.submit(self.dataset.gather(index)).result()
            self.respond.complete(number, self.encode(outputs, index, self.dataset).data)
        except Exception as error:  # ends the run: a failure is never an answer
            self.respond.fail(f"sample {index[0]}: {error}")

    def flush(self) -> None: ...

    def stop(self) -> None:
        self.thread.shutdown(cancel_futures=True)
