"""A backend of your own, in ten lines. ONNX Runtime is in the place of your runtime."""

from concurrent.futures import Future
from dataclasses import dataclass

from bench_bert.dataset import Batch
from bench_bert.official import INPUTS, ONNX, OUTPUTS
from bench_bert.postprocess import Logits, full_width
from loadgen.contracts import BackendOptions, Loaded
from loadgen.harness.runtimes import onnxruntime as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide


@dataclass
class Backend:
    options: BackendOptions

    def __post_init__(self) -> None:
        runtime.find_provider(self.options)  # or raise an InputError: this machine has no such device

    def load(self) -> Loaded:  # the clock is stopped: compile and warm up here
        self.session = runtime.open_session(provide(self.options.model / ONNX, self.options), self.options)
        return runtime.loaded(self.session, self.options, "float32")

    def submit(self, batch: Batch) -> Future[Logits]:  # or return at once, and finish the future later
        start, end = self.session.run(OUTPUTS, dict(zip(INPUTS, batch.columns, strict=True)))
        return finished(full_width(start, end, batch))

    def close(self) -> None: ...
