"""3D U-Net on ONNX Runtime: the official file for any number of windows, or the one for a single window."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np

from bench_3d_unet.config import FILE, read_config
from bench_3d_unet.dataset import Batch
from bench_3d_unet.official import INPUT, ONNX, ONNX_ONE, OUTPUT
from bench_3d_unet.postprocess import check_outputs
from bench_3d_unet.preprocess import Label
from bench_3d_unet.sliding_window import F32, at_once, segment
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import onnxruntime as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on the caller's thread."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have."""
        if options.dtype != "float32":
            raise InputError(f"dtype {options.dtype!r}: the file holds float32: leave out --dtype, or use pytorch")
        runtime.find_provider(options)
        self.options = options

    def load(self) -> Loaded:
        """Read the file and run it once. Raises InputError naming it."""
        single = self.options.model / ONNX_ONE
        dynamic = self.options.model / ONNX
        path = single if single.is_file() and not dynamic.is_file() else provide(dynamic, self.options)
        self.window = read_config(self.options.model / FILE).window
        self.session: Any = runtime.open_session(path, self.options)
        batch, *shape = runtime.named_interface(self.session, inputs=[INPUT], outputs=[OUTPUT], path=path)[INPUT]
        if shape != [1, *[self.window] * 3]:
            raise InputError(
                f"{path}: {INPUT} is [n, {', '.join(map(str, shape))}], expected a window of one channel and "
                f"{self.window} voxels a side: use the official file, for KiTS19 and not for BraTS"
            )
        self.windows = batch or at_once(self.window)
        check_outputs(path, self.predict(np.zeros((1, 1, *[self.window] * 3), np.float32)), self.window)
        return runtime.loaded(self.session, self.options, "float32")

    def predict(self, windows: F32) -> F32:
        """Logits [n, 3, W, W, W] of windows [n, 1, W, W, W]."""
        logits: F32 = self.session.run([OUTPUT], {INPUT: windows})[0]
        return logits

    def submit(self, batch: Batch) -> Future[list[Label]]:
        """A finished future of labels [D, H, W] of each volume. Raises what ONNX Runtime raises."""
        return finished(segment(batch.volumes, self.predict, self.window, self.windows))

    def close(self) -> None:
        """Frees the session."""
        self.__dict__.pop("session", None)
