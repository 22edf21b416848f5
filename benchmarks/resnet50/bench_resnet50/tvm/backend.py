"""ResNet-50 on TVM: compiled from `resnet50_v1.onnx`, the official file or one of the same input and outputs.

Works with apache-tvm 0.27.0.post1, onnx 1.23.2 and NumPy 2.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor

import tvm  # type: ignore[import-untyped]
from tvm import relax

from bench_resnet50.batch import Batch, Values, blank, check_variant, in_parts, normalised
from bench_resnet50.config import FILE, read_config
from bench_resnet50.official import BACKGROUND, ONNX
from bench_resnet50.postprocess import check_outputs
from bench_resnet50.tvm.compiler import host_level, load_library
from loadgen.contracts import BackendOptions, Loaded
from loadgen.harness.runtimes.devices import only_cpu
from loadgen.harness.standins.making import provide

_MOST = 4
"""Images that a model of no fixed size gets at a time: of 8, an image takes a sixth more of the processor's time, as
what one layer leaves is no longer in its caches for the next."""


class Backend:
    """See `loadgen.contracts.Backend`. Computes on a thread of its own: TVM has a pool of threads for each caller."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have, or a profile of other weights."""
        check_variant(options, "tf")
        only_cpu(options)
        self._options = options
        self._thread: ThreadPoolExecutor | None = None

    def load(self) -> Loaded:
        """Compile, or load what was compiled before, and run once. Raises InputError naming the file.

        TVM takes thread counts from the environment; a process's last backend decides for those made later.
        """
        os.environ["TVM_NUM_THREADS"] = str(self._options.threads or len(os.sched_getaffinity(0)))
        os.environ.setdefault("TVM_BIND_THREADS", "0")  # else it ties this process to its first cores
        path = provide(self._options.model / ONNX, self._options)
        config = read_config(self._options.model / FILE)
        library, self.rows = load_library(path, config)
        self._main = relax.VirtualMachine(library, tvm.cpu())["main"]
        self._thread = ThreadPoolExecutor(1, "tvm")
        outputs = self._thread.submit(self._run, blank(config.image)).result()
        check_outputs(path, outputs, config, background=True, softmax=False)
        return Loaded(f"cpu (LLVM, {host_level().name})", "float32", {"tvm": tvm.__version__})

    def _run(self, batch: Batch) -> Values:
        """Logits [n, classes + 1]."""
        images = normalised(batch).transpose(0, 3, 1, 2)
        return in_parts(images, lambda part: self._main(tvm.runtime.tensor(part)).numpy(), self.rows, _MOST)

    def submit(self, batch: Batch) -> Future[Values]:
        """The future of logits [n, classes]; it raises what TVM raises."""
        assert self._thread is not None
        return self._thread.submit(lambda: self._run(batch)[:, BACKGROUND:])

    def close(self) -> None:
        """Frees the model and ends the thread."""
        if self._thread is not None:
            self._thread.shutdown()
        self._thread = self._main = None
