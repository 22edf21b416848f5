"""ResNet-50 on TensorFlow: `resnet50_v1.pb`, the official frozen graph or one of the same input and output.

Works with tensorflow-cpu 2.21.0 and NumPy 2.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_resnet50.batch import Batch, Values, blank, check_variant, in_parts, normalised
from bench_resnet50.config import FILE, ResNetConfig, read_config
from bench_resnet50.official import BACKGROUND, CLASSES, INPUT, PROBABILITIES, TENSORFLOW
from bench_resnet50.postprocess import check_outputs
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import tensorflow as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

if TYPE_CHECKING:
    import tensorflow as tf


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have, or a profile of other weights."""
        check_variant(options, "tf")
        runtime.check_options(options, TENSORFLOW)
        self._options = options
        self._session: Any = None

    def load(self) -> Loaded:
        """Read the graph and run it once. Raises InputError naming the file and the tensor."""
        path = provide(self._options.model / TENSORFLOW, self._options)
        config = read_config(self._options.model / FILE)
        frozen = runtime.read_graph(path, self._options.device)
        self._logits = find_logits(frozen.graph, path, config)
        self.rows: int | None = frozen.graph.get_tensor_by_name(INPUT).shape[0]
        """Images that a graph of a fixed batch takes at once; None: any number."""
        self._session = runtime.open_session(frozen, self._options)
        check_outputs(path, self._run(blank(config.image)), config, background=True, softmax=False)
        return runtime.loaded(self._options)

    def _run(self, batch: Batch) -> Values:
        """Logits [n, classes + 1]."""
        return in_parts(normalised(batch), lambda part: self._session.run(self._logits, {INPUT: part}), self.rows)

    def submit(self, batch: Batch) -> Future[Values]:
        """A finished future of logits [n, classes]. Raises what TensorFlow raises."""
        return finished(self._run(batch)[:, BACKGROUND:])

    def close(self) -> None:
        """Frees the session."""
        if self._session is not None:
            self._session.close()
        self._session = None


def find_logits(graph: tf.Graph, path: Path, config: ResNetConfig) -> Any:
    """What goes into the softmax [n, classes + 1], or into the ArgMax: the official graph has no fixed name for it.

    Raises InputError naming the file, and the tensor that is missing or of another shape.
    """
    operations = {f"{operation.name}:0": operation for operation in graph.get_operations()}
    kinds = {name: operation.type for name, operation in operations.items()}
    if kinds.get(INPUT) != "Placeholder":
        raise InputError(f"{path}: has no Placeholder {INPUT}: fetch it again, or use a ResNet-50 with this name")
    ends = {PROBABILITIES: "Softmax", CLASSES: "ArgMax"}
    end = next((name for name, kind in ends.items() if kinds.get(name) == kind), None)
    if end is None:
        raise InputError(
            f"{path}: has neither a Softmax {PROBABILITIES} nor an ArgMax {CLASSES}: "
            "fetch it again, or use a ResNet-50 with one of them"
        )
    shape, wanted = operations[INPUT].outputs[0].shape, [None, config.image, config.image, 3]
    if not shape.is_compatible_with(wanted):
        raise InputError(f"{path}: tensor {INPUT} has shape {shape}, expected {wanted}: use the official file")
    return operations[end].inputs[0]
