"""A backend of your own, in ten lines. ONNX Runtime is in the place of your runtime."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import onnxruntime

from bench_bert.dataset import Batch
from bench_bert.formats import provide
from bench_bert.postprocess import full_width
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.serving.batching import finished

INPUTS = ["input_ids", "input_mask", "segment_ids"]
OUTPUTS = ["output_start_logits", "output_end_logits"]


@dataclass
class Backend:
    options: BackendOptions

    def __post_init__(self) -> None:
        if (self.options.device, self.options.dtype) != ("cpu", "float32"):
            raise InputError("this backend computes with --device cpu and --dtype float32")

    def load(self) -> None:  # the clock is stopped: compile and warm up here
        self.session = onnxruntime.InferenceSession(provide(self.options.model / "model.onnx", self.options.extra))

    def submit(self, batch: Batch) -> Future[Any]:  # or return at once, and finish the future later
        start, end = self.session.run(OUTPUTS, {name: getattr(batch, name) for name in INPUTS})
        return finished(full_width(start, end, batch))

    def close(self) -> None: ...
