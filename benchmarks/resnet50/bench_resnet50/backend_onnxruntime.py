"""ResNet-50 on ONNX Runtime: the official `resnet50_v1.onnx`, or one of the same input and outputs."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from bench_resnet50.batch import Batch, Values, blank, check_variant, in_parts, normalised
from bench_resnet50.config import FILE, read_config
from bench_resnet50.official import BACKGROUND, CLASSES, INPUT, ONNX, PROBABILITIES
from bench_resnet50.postprocess import are_probabilities, check_outputs, logits_of
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import onnxruntime as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def with_scores(path: Path) -> tuple[bytes, str]:
    """(the model, what its `ArgMax:0` compares, which it now gives out), for a file that gives its classes alone.

    A class does not show how many there are, and so not whether the background is one of them. Needs onnx.
    Raises InputError naming the file."""
    import onnx

    model = onnx.load(path)
    read = [node.input[0] for node in model.graph.node if node.op_type == "ArgMax" and CLASSES in node.output]
    if not read:
        raise InputError(f"{path}: {CLASSES} is not an ArgMax, nor {PROBABILITIES} a Softmax: use the official file")
    model.graph.output.append(onnx.helper.make_tensor_value_info(read[0], onnx.TensorProto.FLOAT, None))
    return model.SerializeToString(), read[0]


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
        session = runtime.open_session(path, self._options)
        gives = {node.name for node in session.get_outputs()}
        output = PROBABILITIES if PROBABILITIES in gives or CLASSES not in gives else CLASSES
        shapes = runtime.named_interface(session, inputs=[INPUT], outputs=[output], path=path)
        self.rows, *sizes = shapes[INPUT]
        """Images that a file of a fixed batch takes at once; None: any number."""
        wanted = [3, config.image, config.image]
        if sizes != wanted:
            raise InputError(f"{path}: {INPUT} is [n, *{sizes}], expected [n, *{wanted}]: use the official file")
        self._session, self._output, self._is_softmax = session, output, output == PROBABILITIES
        scores = self._run(blank(config.image))
        if CLASSES in gives and not (self._is_softmax and are_probabilities(scores)):
            content, self._output = with_scores(path)  # what the reference reads is this file's ArgMax
            self._session, self._is_softmax = runtime.open_session(path, self._options, content), False
            scores = self._run(blank(config.image))
        check_outputs(path, scores, config, background=True, softmax=self._is_softmax)
        return runtime.loaded(self._session, self._options, "float32")

    def _run(self, batch: Batch) -> Values:
        """Probabilities [n, classes + 1], or what a file without them compares for its classes."""
        session = self._session
        assert session is not None

        def run(images: Values) -> Values:
            scores: Values = session.run([self._output], {INPUT: images})[0]
            return scores

        return in_parts(normalised(batch).transpose(0, 3, 1, 2), run, self.rows)

    def submit(self, batch: Batch) -> Future[Values]:
        """A finished future of logits [n, classes], but for a constant a row. Raises what ONNX Runtime raises."""
        scores = self._run(batch)
        return finished(logits_of(scores) if self._is_softmax else scores[:, BACKGROUND:])

    def close(self) -> None:
        """Frees the session."""
        self._session = None
