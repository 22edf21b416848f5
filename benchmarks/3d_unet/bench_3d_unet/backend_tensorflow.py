"""3D U-Net on TensorFlow: the official SavedModel, or one of the same signature."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from bench_3d_unet.config import FILE, read_config
from bench_3d_unet.dataset import Batch
from bench_3d_unet.official import SAVED_MODEL, SIGNATURE, TENSORFLOW
from bench_3d_unet.postprocess import check_outputs
from bench_3d_unet.preprocess import Label
from bench_3d_unet.sliding_window import F32, at_once, segment
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import tensorflow as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have."""
        runtime.check_options(options, TENSORFLOW)
        if options.device not in ("cpu", "cuda", "cuda:0"):  # a SavedModel's operations say no device, so they get it
            raise InputError(
                f"device {options.device!r}: TensorFlow computes a SavedModel on the first GPU: use cuda:0"
            )
        self.options = options

    def load(self) -> Loaded:
        """Read the SavedModel and run it once. Raises InputError naming it."""
        path = provide(self.options.model / SAVED_MODEL, self.options)
        self.window = read_config(self.options.model / FILE).window
        self.session, taken, self.output = open_model(path, self.options)
        self.input, (batch, *shape) = taken
        wanted = [1, *[self.window] * 3]
        if len(shape) != 4 or any(side not in (None, want) for side, want in zip(shape, wanted, strict=True)):
            raise InputError(
                f"{path}: takes [n, {', '.join(map(str, shape))}], expected a window of one channel and "
                f"{self.window} voxels a side: use the official folder, for KiTS19 and not for BraTS"
            )
        self.windows = batch or at_once(self.window)
        check_outputs(path, self.predict(np.zeros((1, 1, *[self.window] * 3), np.float32)), self.window)
        return runtime.loaded(self.options)

    def predict(self, windows: F32) -> F32:
        """Logits [n, 3, W, W, W] of windows [n, 1, W, W, W]."""
        logits: F32 = self.session.run(self.output, {self.input: windows})
        return logits

    def submit(self, batch: Batch) -> Future[list[Label]]:
        """A finished future of labels [D, H, W] of each volume. Raises what TensorFlow raises."""
        return finished(segment(batch.volumes, self.predict, self.window, self.windows))

    def close(self) -> None:
        """Frees the session."""
        session = self.__dict__.pop("session", None)
        if session is not None:
            session.close()


def open_model(path: Path, options: BackendOptions) -> tuple[Any, tuple[str, list[int | None]], str]:
    """A session, the input's name and shape (None: any side), the output's name: the signature has one input, and its
    first output counts, as in the reference.

    path: of `saved_model.pb`. Raises InputError naming it.
    """
    import tensorflow as tf

    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official folder {path.parent.name} there")
    with tf.Graph().as_default() as graph:
        session = runtime.session_of(graph, options)
        try:
            signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(path.parent)).signature_def
        except Exception as error:  # what is wrong with a file comes as a dozen types
            session.close()
            raise InputError(f"{path}: TensorFlow cannot load it ({error}). Fetch it again") from error
        if SIGNATURE not in signatures or len(signatures[SIGNATURE].inputs) != 1:
            raise InputError(f"{path}: has no signature {SIGNATURE} of one input: use the official folder")
        (taken,) = signatures[SIGNATURE].inputs.values()
        given = [value for _, value in sorted(signatures[SIGNATURE].outputs.items())]
        found = graph.get_tensor_by_name(taken.name).shape
        shape = [1, *[None] * 4] if found.rank is None else found.as_list()  # of any shape: one window is safe
    return session, (taken.name, shape), given[0].name
