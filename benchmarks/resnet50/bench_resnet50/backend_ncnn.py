"""ResNet-50 on ncnn: the official `.param` and `.bin`, or others with a blob in0 -> out0.

Works with ncnn 1.0.20261020 and NumPy 2.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import ncnn  # type: ignore[import-untyped]
import numpy as np

from bench_resnet50.batch import Batch, Values, blank, check_variant, normalised
from bench_resnet50.config import FILE, read_config
from bench_resnet50.official import NCNN, NCNN_INPUT, NCNN_MAGIC, NCNN_OUTPUT
from bench_resnet50.postprocess import check_outputs
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes.devices import only_cpu
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

_ADVICE = "Fetch resnet50_v1.param and resnet50_v1.bin again, both from one place"
_WEIGHTS = {"Convolution": ("6", "0", "5"), "InnerProduct": ("2", "0", "1")}  # keys of: weights, biases, has biases
_STORED = {0: 4, 0x01306B47: 2}  # mark before the weights -> bytes each: float32, float16
_NARROW = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")


class Backend:
    """See `loadgen.contracts.Backend`. Computes inside `submit`, on threads of its own.

    A batch runs as one image a thread, as many at once as there are threads: ncnn leaves Python's lock while it
    computes, and an image fills a core. (ncnn also takes a batch as one blob, but goes through it image by image
    in each layer: as fast with one thread, slower with several.) A single image takes all threads together. As ncnn
    lays out weights for a number of threads, they are in memory twice.
    """

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this backend does not have, or a profile of other weights."""
        check_variant(options, "torch")
        only_cpu(options)
        self._options = options
        self._pool: ThreadPoolExecutor | None = None

    def load(self) -> Loaded:
        """Read both files and run once. Raises InputError naming the file, and the layer or blob."""
        path = provide(self._options.model / NCNN, self._options)
        config = read_config(self._options.model / FILE)
        check_files(path)
        threads = self._options.threads or len(os.sched_getaffinity(0))
        self._alone = _net(path, threads)
        self._beside = _net(path, 1) if threads > 1 else self._alone
        self._pool = ThreadPoolExecutor(threads, "ncnn")
        check_outputs(path, self._run(blank(config.image, 2)), config, background=False, softmax=False)
        return Loaded("cpu (ncnn)", "float32", {"ncnn": ncnn.__version__})

    def _run(self, batch: Batch) -> Values:
        images = np.ascontiguousarray(normalised(batch).transpose(0, 3, 1, 2))
        if len(images) == 1:
            return _logits(self._alone, images[0])[None]
        assert self._pool is not None
        return np.stack(list(self._pool.map(_logits, repeat(self._beside), images)))

    def submit(self, batch: Batch) -> Future[Values]:
        """A finished future of logits [n, classes]. Raises what ncnn raises."""
        return finished(self._run(batch))

    def close(self) -> None:
        """Frees the weights and ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = self._alone = self._beside = None


def _net(path: Path, threads: int) -> Any:
    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in _NARROW:
        setattr(net.opt, option, False)
    if net.load_param(str(path)):
        raise InputError(f"{path}: ncnn {ncnn.__version__} cannot load it. {_ADVICE}")
    if net.load_model(str(path.with_suffix(".bin"))):
        raise InputError(f"{path.with_suffix('.bin')}: ncnn {ncnn.__version__} cannot load it. {_ADVICE}")
    return net


def _logits(net: Any, image: Values) -> Values:
    """Logits [classes] of one image [3, height, width]."""
    extractor = net.create_extractor()
    if extractor.input(NCNN_INPUT, ncnn.Mat(image)):
        raise RuntimeError(f"ncnn does not take an image of shape {list(image.shape)} as blob {NCNN_INPUT!r}")
    failed, output = extractor.extract(NCNN_OUTPUT)
    if failed:
        raise RuntimeError(f"ncnn failed to compute blob {NCNN_OUTPUT!r} (code {failed})")
    return np.array(output, np.float32)


def check_files(path: Path) -> None:
    """Refuse what ncnn would crash on or take in silence: a damaged `.param`, a `.bin` of other sizes.

    Raises InputError naming the file, and the layer or blob.
    """
    for file in (path, path.with_suffix(".bin")):
        if not file.is_file():
            raise InputError(f"{file}: no such file. Put the official {path.name} and {path.stem}.bin there")
    layers = _read_layers(path)
    names = {name for _, _, blobs, _ in layers for name in blobs}
    missing = [name for name in (NCNN_INPUT, NCNN_OUTPUT) if name not in names]
    if missing:
        raise InputError(f"{path}: has no blob {', '.join(missing)}: use a ResNet-50 converted by pnnx")
    _check_sizes(path.with_suffix(".bin"), layers)


def _read_layers(path: Path) -> list[tuple[str, str, list[str], dict[str, str]]]:
    """(type, name, blobs, options) of every line."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != NCNN_MAGIC:
        raise InputError(f"{path}: does not begin with {NCNN_MAGIC}, so it is not an ncnn .param file. {_ADVICE}")
    try:
        layers = [_read_layer(line.split()) for line in lines[2:] if line.strip()]
        expected = int(lines[1].split()[0])
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: a line is not as ncnn writes it ({error}). {_ADVICE}") from error
    if len(layers) != expected:
        raise InputError(f"{path}: has {len(layers)} layers, its second line says {expected}. {_ADVICE}")
    return layers


def _read_layer(words: list[str]) -> tuple[str, str, list[str], dict[str, str]]:
    kind, name, inputs, outputs, *rest = words
    count = int(inputs) + int(outputs)
    return kind, name, rest[:count], dict(option.split("=", 1) for option in rest[count:])


def _check_sizes(path: Path, layers: list[tuple[str, str, list[str], dict[str, str]]]) -> None:
    """Walk through the weights by their marks, each of which says how the numbers after it are stored."""
    data, at = path.read_bytes(), 0
    for kind, name, _, options in layers:
        if kind not in _WEIGHTS:
            continue
        weights, outputs, has_bias = (options.get(key, "") for key in _WEIGHTS[kind])
        if not (weights.isdecimal() and outputs.isdecimal()):
            param = path.with_suffix(".param")
            raise InputError(f"{param}: layer {name!r} does not say the size of its weights. {_ADVICE}")
        mark = int.from_bytes(data[at : at + 4], "little")
        if mark not in _STORED:
            raise InputError(f"{path}: the weights of layer {name!r} are not marked as float32 or float16. {_ADVICE}")
        stored = -(-int(weights) * _STORED[mark] // 4) * 4  # up to a multiple of 4
        at += 4 + stored + 4 * int(outputs) * (has_bias == "1")
        if at > len(data):
            raise InputError(f"{path}: ends within layer {name!r}, at byte {len(data)} of {at}. {_ADVICE}")
    if at != len(data):
        raise InputError(f"{path}: has {len(data) - at} bytes beyond the last layer of {path.stem}.param. {_ADVICE}")
