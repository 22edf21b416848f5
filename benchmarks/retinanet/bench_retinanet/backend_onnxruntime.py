"""RetinaNet on ONNX Runtime: the official `resnext50_32x4d_fpn.onnx`, or one of the same input and outputs.

The official file takes one image, so a batch is computed image by image; one that takes any number gets all at once.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

from bench_retinanet.config import FILE, read_config
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
        side = read_config(self._options.model / FILE).image
        self._session = runtime.open_session(path, self._options)
        shapes = runtime.named_interface(self._session, inputs=[INPUT], outputs=OUTPUTS, path=path)
        self.rows, *sizes = shapes[INPUT]
        """Images that a file of a fixed batch takes at once; None: any number."""
        if self.rows not in (None, 1) or any(size not in (None, wanted) for size, wanted in zip(sizes, (3, side, side))):
            raise InputError(
                f"{path}: {INPUT} is {[self.rows, *sizes]}, expected [1 or any, 3, {side}, {side}]: use the official file"
            )
        shape = (1 if self.rows else 2, 3, side, side)
        found = self._run(np.zeros(shape, np.float32))
        _check(found, shape[0], path.name)
        return runtime.loaded(self._session, self._options, "float32")

    def _run(self, images: Images) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        """Boxes, scores and labels, whatever the file's order is."""
        assert self._session is not None
        found: list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = self._session.run(OUTPUTS, {INPUT: images})
        return found

    def submit(self, batch: Batch) -> Future[Detections]:
        """A finished future. Raises what ONNX Runtime raises."""
        images = np.ascontiguousarray(batch.images)
        if self.rows is None:
            return finished(packed(*self._run(images)))
        parts = (self._run(images[place : place + 1]) for place in range(len(images)))
        return finished(joined([packed(*(column[None] for column in found)) for found in parts]))

    def close(self) -> None:
        """Frees the session."""
        self._session = None
