"""RetinaNet on ONNX Runtime: the official `resnext50_32x4d_fpn.onnx`, or one of the same input and outputs.

The official file takes one image, so a batch is computed image by image; one that takes any number gets all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bench_retinanet.config import ANCHORS, FILE, RetinaNetConfig, head_outputs, read_config
from bench_retinanet.dataset import Batch
from bench_retinanet.official import INPUT, ONNX, OUTPUTS
from bench_retinanet.postprocess import Detections, joined, packed
from bench_retinanet.preprocess import Images
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import onnxruntime as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


Output: TypeAlias = npt.NDArray[Any]


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have."""
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
        side = config.image
        _check_classes(path, config)
        self._session = runtime.open_session(path, self._options)
        shapes = runtime.named_interface(self._session, inputs=[INPUT], outputs=OUTPUTS, path=path)
        self.rows, *sizes = shapes[INPUT]
        """Images that the file takes at once, 1; None: any number."""
        wanted = (3, side, side)
        if self.rows not in (None, 1) or any(s not in (None, w) for s, w in zip(sizes, wanted, strict=False)):
            raise InputError(
                f"{path}: {INPUT} is {[self.rows, *sizes]}, expected [1 or any number, 3, {side}, {side}]: "
                "use the official file"
            )
        count = self.rows or 2
        _check_outputs(path, self._run(np.zeros((count, *wanted), np.float32)), count)
        return runtime.loaded(self._session, self._options, "float32")

    def _run(self, images: Images) -> list[Output]:
        """Boxes, scores and labels, whatever the file's order is."""
        assert self._session is not None
        found: list[Output] = self._session.run(OUTPUTS, {INPUT: images})
        return found

    def submit(self, batch: Batch) -> Future[Detections]:
        """A finished future. Raises what ONNX Runtime raises."""
        images = np.ascontiguousarray(batch.images)
        if self.rows is None:
            return finished(packed(*self._run(images)))
        parts = (self._run(images[place : place + 1]) for place in range(len(images)))
        return finished(joined([packed(*(column[None] for column in part)) for part in parts]))

    def close(self) -> None:
        """Frees the session."""
        self._session = None


def _check_classes(file: Path, config: RetinaNetConfig) -> None:
    """Raise InputError that names the file unless a convolution in it gives each anchor a score of each class.

    What the file gives shows only the classes that were found. Weights may have any names."""
    graph = runtime.read_graph(file)
    wanted = head_outputs(config)["classification_head"]
    kernels = [shape for shape in runtime.constant_shapes(graph).values() if len(shape) == 4] if graph else []
    if kernels and wanted not in [shape[0] for shape in kernels]:
        raise InputError(
            f"{file}: no convolution gives {wanted} numbers, {ANCHORS} anchors' scores of {config.classes} classes: "
            f"use the official file, or the {FILE} that was written with this one"
        )


def _check_outputs(file: Path, found: Sequence[Output], count: int) -> None:
    """Raise InputError that names the file unless it gives [m, 4], [m] and [m] for one image, or, if it takes any
    number, as many rows of these for each."""
    boxes, scores, labels = (column.shape for column in found)
    leading = 1 if count == 1 else 2
    if len(scores) != leading or labels != scores or boxes != (*scores, 4) or (count > 1 and scores[0] != count):
        raise InputError(
            f"{file}: boxes, scores and labels are {[list(shape) for shape in (boxes, scores, labels)]} for {count} "
            "image(s), expected [m, 4], [m] and [m], or of each image as many: use the official file"
        )
