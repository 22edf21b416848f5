"""ResNet-50 on ONNX Runtime: the official `resnet50_v1.onnx`, or one of the same input and outputs."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from bench_resnet50.batch import Batch, Values, blank, check_variant, in_parts, normalised
from bench_resnet50.config import FILE, read_config
from bench_resnet50.official import INPUT, ONNX, PROBABILITIES
from bench_resnet50.postprocess import check_outputs, logits_of
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import onnxruntime as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have, or a profile of other weights."""
        check_variant(options, "tf")
        if options.dtype != "float32":
            raise InputError(
                f"dtype {options.dtype!r}: the file holds float32: leave out --dtype, or use backend pytorch"
            )
        runtime.find_provider(options)
        self._options = options
        self._session: InferenceSession | None = None

    def load(self) -> Loaded:
        """Read the file and run it once. Raises InputError naming the file."""
        path = provide(self._options.model / ONNX, self._options)
        config = read_config(self._options.model / FILE)
        self._session = runtime.open_session(path, self._options)
        shapes = runtime.named_interface(self._session, inputs=[INPUT], outputs=[PROBABILITIES], path=path)
        self.rows, *sizes = shapes[INPUT]
        """Images that a file of a fixed batch takes at once; None: any number."""
        wanted = [3, config.image, config.image]
        if sizes != wanted:
            raise InputError(f"{path}: {INPUT} is [n, *{sizes}], expected [n, *{wanted}]: use the official file")
        probabilities = self._run(blank(config.image))
        check_outputs(path, probabilities, config, background=True, softmax=True)
        return runtime.loaded(self._session, self._options, "float32")

    def _run(self, batch: Batch) -> Values:
        """Probabilities [n, classes + 1]."""
        session = self._session
        assert session is not None

        def run(images: Values) -> Values:
            probabilities: Values = session.run([PROBABILITIES], {INPUT: images})[0]
            return probabilities

        return in_parts(normalised(batch).transpose(0, 3, 1, 2), run, self.rows)

    def submit(self, batch: Batch) -> Future[Values]:
        """A finished future of logits [n, classes], but for a constant a row. Raises what ONNX Runtime raises."""
        return finished(logits_of(self._run(batch)))

    def close(self) -> None:
        """Frees the session."""
        self._session = None
