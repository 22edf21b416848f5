"""ResNet-50 on TVM: compiled from `resnet50_v1.onnx`, the official file or one of the same input and outputs.

Works with apache-tvm 0.27.0.post1, onnx 1.23.2 and NumPy 2.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm  # type: ignore[import-untyped]
from tvm import relax

from bench_resnet50.backend_tvm_compiler import host_level, load_library
from bench_resnet50.config import FILE, read_config
from bench_resnet50.dataset import Batch
from bench_resnet50.formats import BACKGROUND, ONNX
from bench_resnet50.preprocess import check_variant, normalised
from bench_resnet50.synthetic import provide
from loadgen.contracts import BackendOptions, InputError

_MOST = 4
"""Images that a model of no fixed size gets at a time: of 8, an image takes a sixth more of the processor's time, as
what one layer leaves is no longer in its caches for the next."""


class Backend:
    """See `loadgen.contracts.Backend`. Computes on a thread of its own: TVM has a pool of threads for each caller."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have, or a profile of other weights."""
        check_variant(options, "tf")
        if options.device != "cpu":
            raise InputError(f"device {options.device!r}: this backend runs on cpu; use that, or backend pytorch")
        if options.dtype != "float32":
            raise InputError(f"dtype {options.dtype!r}: this backend computes in float32; leave dtype at that")
        self.options = options

    def load(self) -> None:
        """Compile, or load what was compiled before, and run once. Raises InputError naming the file.

        TVM takes thread counts from the environment; a process's last backend decides for those made later.
        """
        os.environ["TVM_NUM_THREADS"] = str(self.options.threads or len(os.sched_getaffinity(0)))
        os.environ.setdefault("TVM_BIND_THREADS", "0")  # else it ties this process to its first cores
        path = self.options.model / ONNX
        provide(path, self.options.extra)
        config = read_config(self.options.model / FILE)
        library, self.rows = load_library(path, config)
        self.device_name = f"cpu (LLVM, {host_level().name})"
        self.run = relax.VirtualMachine(library, tvm.cpu())["main"]
        self.thread = ThreadPoolExecutor(1, "tvm")
        self.predict(Batch(np.zeros((1, config.image, config.image, 3), np.uint8)))

    def predict(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Logits [n, classes]. A model of fixed batch size gets so many images at a time, the last ones repeated."""
        logits: npt.NDArray[np.float32] = self.submit(batch).result()
        return logits

    def submit(self, batch: Batch) -> Future[Any]:
        """The future of `predict`'s logits; it raises what TVM raises."""
        return self.thread.submit(self._predict, batch)

    def _predict(self, batch: Batch) -> npt.NDArray[np.float32]:
        images = normalised(batch).transpose(0, 3, 1, 2)
        step = self.rows or min(len(images), _MOST)
        parts = []
        for first in range(0, len(images), step):
            part = images[first : first + step]
            # np.resize repeats images to fill a last part that has too few
            full = np.resize(part, (self.rows or len(part), *part.shape[1:]))
            parts.append(self.run(tvm.runtime.tensor(full)).numpy()[: len(part), BACKGROUND:])
        return np.concatenate(parts)

    def close(self) -> None:
        """Frees the model and ends the thread."""
        thread = self.__dict__.pop("thread", None)
        if thread is not None:
            thread.shutdown()
        self.__dict__.pop("run", None)
