"""All five backends: against a network computed in numpy, against ResNet-50 in full, and what they say to files that do
not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tensorflow as tf
import torch

from bench_resnet50.batch import Batch, normalised
from bench_resnet50.benchmark import BENCHMARK
from bench_resnet50.config import FILE, ResNetConfig, bottlenecks, read_config, write_config
from bench_resnet50.model import ResNet
from bench_resnet50.official import CLASSES, NCNN, ONNX, PROBABILITIES, PYTORCH, TENSORFLOW
from bench_resnet50.standins.format_tensorflow import write_tensorflow
from bench_resnet50.standins.formats import WRITERS, write_onnx
from bench_resnet50.standins.synthetic import random_tensors
from loadgen.contracts import InputError

NAMES = list(BENCHMARK.backends)
FILES = {name: spec.file for name, spec in BENCHMARK.backends.items()}
COUNT_BACKGROUND = ["onnxruntime", "tensorflow", "tvm"]  # the official files of these have one class more
TOLERANCE = 5e-5  # of logits within 5; measured: 1e-5
Load = Callable[..., Any]
Values = npt.NDArray[np.float64]


def convolved(x: Values, weight: Values, stride: int) -> Values:
    size = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))[:, :, ::stride, ::stride]
    return np.asarray(np.einsum("ncyxij,ocij->noyx", windows, weight, optimize=True))


def in_numpy(config: ResNetConfig, tensors: dict[str, Any], batch: Batch) -> Values:
    """Logits in float64, from the definition of each layer."""
    t = {name: value.astype(np.float64) for name, value in tensors.items()}

    def step(x: Values, convolution: str, norm: str, stride: int = 1) -> Values:
        x = convolved(x, t[f"{convolution}.weight"], stride)
        scale, shift, mean, var = (
            t[f"{norm}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return np.asarray((x - mean) / np.sqrt(var + 1e-5) * scale + shift)

    images = normalised(batch).astype(np.float64).transpose(0, 3, 1, 2)
    x = np.maximum(step(images, "conv1", "bn1", 2), 0)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    x = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2].max((-1, -2))
    for block in bottlenecks(config):
        name, same = block.name, x
        x = np.maximum(step(x, f"{name}.conv1", f"{name}.bn1"), 0)
        x = np.maximum(step(x, f"{name}.conv2", f"{name}.bn2", block.stride), 0)
        x = step(x, f"{name}.conv3", f"{name}.bn3")
        if f"{name}.downsample.0.weight" in t:
            same = step(same, f"{name}.downsample.0", f"{name}.downsample.1", block.stride)
        x = np.maximum(x + same, 0)
    return np.asarray(x.mean((2, 3)) @ t["fc.weight"].T + t["fc.bias"])


def centred(logits: Any) -> Any:
    """Without the constant a row that a softmax takes away."""
    return logits - logits.mean(axis=1, keepdims=True)


@pytest.fixture
def expected(small_files: Path, small_tensors: dict[str, Any], small_batch: Batch) -> Values:
    return in_numpy(read_config(small_files / FILE), small_tensors, small_batch)


@pytest.mark.parametrize("name", NAMES)
def test_equals_numpy(name: str, small_files: Path, small_batch: Batch, expected: Values, load: Load) -> None:
    logits = load(name, small_files, threads=2).submit(small_batch).result()
    assert (logits.shape, logits.dtype) == ((5, 10), np.float32)
    assert np.abs(centred(expected)).max() > 1, "logits large enough for the tolerance to mean something"
    assert np.abs(centred(logits) - centred(expected)).max() < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_does_not_depend_on_its_batch(
    name: str, small_files: Path, small_batch: Batch, expected: Values, load: Load
) -> None:
    backend = load(name, small_files)
    for rows in ([4], [2, 0], [1, 1, 3]):
        logits = backend.submit(Batch(small_batch.images, rows=np.array(rows))).result()
        assert np.abs(centred(logits) - centred(expected[rows])).max() < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_says_how_it_is_normalised(
    name: str, small_files: Path, small_tensors: dict[str, Any], small_batch: Batch, load: Load
) -> None:
    batch = Batch(small_batch.images, "torch")
    expected = in_numpy(read_config(small_files / FILE), small_tensors, batch)
    assert np.abs(centred(load(name, small_files).submit(batch).result()) - centred(expected)).max() < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_what_was_loaded_is_told(name: str, small_files: Path, load: Load) -> None:
    backend = load(name, small_files)
    backend.close()
    loaded = backend.load()
    assert (loaded.device.split()[0], loaded.dtype) == ("cpu", "float32")
    assert all(version[0].isdecimal() for version in loaded.versions.values())


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", COUNT_BACKGROUND)
def test_a_model_of_a_fixed_batch(
    name: str, rows: int, small: Path, small_tensors: dict[str, Any], small_batch: Batch, expected: Values, load: Load
) -> None:
    write = {ONNX: write_onnx, TENSORFLOW: write_tensorflow}[FILES[name]]
    write(small / FILES[name], read_config(small / FILE), small_tensors, batch=rows)
    backend = load(name, small)
    assert backend.rows == rows
    assert np.abs(centred(backend.submit(small_batch).result()) - centred(expected)).max() < TOLERANCE


class Full:
    """ResNet-50 with seeded random weights in all formats, 4 images, and what PyTorch makes of them.

    Logits are within 6.4, the smallest margin of a best class is 0.0185. The greatest difference of a logit, measured
    on a CPU: ONNX Runtime 2.2e-4, TensorFlow 1.9e-4, TVM 1.9e-4, ncnn 2.6e-4, PyTorch (batch norms folded) 2.3e-4.
    """

    tolerance = 1e-3

    def __init__(self, folder: Path) -> None:
        self.folder, config = folder, ResNetConfig()
        tensors = random_tensors(config, 1)
        write_config(folder / FILE, config)
        for name, writer in WRITERS.items():
            writer.write(folder / name, config, tensors)
        rng = np.random.default_rng(5)
        flat = rng.integers(0, 256, (4, 4, 4, 3)).repeat(56, axis=1).repeat(56, axis=2)
        pixels = flat + rng.integers(-40, 41, flat.shape)  # 16 patches of colour with noise on them
        self.batch = Batch(pixels.clip(0, 255).astype(np.uint8))
        net = ResNet(config).eval()
        net.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()}, strict=False)
        with torch.inference_mode():
            images = torch.from_numpy(normalised(self.batch)).permute(0, 3, 1, 2).contiguous()
            self.expected: npt.NDArray[np.float32] = net(images).numpy()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Full:
    """Half a minute and 2 GB of memory, with the backends."""
    return Full(tmp_path_factory.mktemp("full"))


@pytest.mark.parametrize("name", NAMES)
def test_equals_pytorch_in_full(name: str, full: Full, load: Load) -> None:
    logits = load(name, full.folder, threads=2).submit(full.batch).result()
    best = np.sort(full.expected, axis=1)[:, -2:]
    assert full.tolerance < (best[:, 1] - best[:, 0]).min() / 2, "so no class can differ"
    assert np.abs(centred(logits) - centred(full.expected)).max() < full.tolerance
    assert (logits.argmax(axis=1) == full.expected.argmax(axis=1)).all()
    assert len(set(full.expected.argmax(axis=1))) > 1


def refused(name: str, model: Path, load: Load) -> str:
    """The message, which names the file of the backend, or the one beside it."""
    with pytest.raises(InputError) as caught:
        load(name, model)
    assert str(model / Path(FILES[name]).stem) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("classes", [9, 11])
@pytest.mark.parametrize("name", NAMES)
def test_another_number_of_classes_is_told(name: str, classes: int, small: Path, load: Load) -> None:
    """The files are of 10. So one without the background under a name that counts it (11 expected), and one with it
    under a name that does not (9 expected), are refused by all: every answer would be one class off."""
    write_config(small / FILE, replace(read_config(small / FILE), classes=classes))
    message = refused(name, small, load)
    if name == "pytorch":  # which sees it before it computes
        assert f"'fc.weight' has shape [10, 64], expected [{classes}, 64]" in message
    elif name == "ncnn":
        assert f"gives [2, 10] for 2 images, expected [n, {classes}] ({classes} classes)" in message
    else:
        assert f"gives [1, 11] for 1 images, expected [n, {classes + 1}] ({classes} classes and the back" in message


def _without_softmax(path: Path) -> None:
    """Logits under the name of the probabilities, the classes beside them as before."""
    if path.name == ONNX:
        document = onnx.load(path)
        (softmax,) = [node for node in document.graph.node if node.output[0] == PROBABILITIES]
        softmax.op_type = "Identity"
        del softmax.attribute[:]
        onnx.save(document, path)
    else:
        definition = tf.compat.v1.GraphDef.FromString(path.read_bytes())
        (softmax,) = [node for node in definition.node if node.op == "Softmax"]
        softmax.op = "Identity"
        path.write_bytes(definition.SerializeToString())


@pytest.mark.parametrize("name", COUNT_BACKGROUND)
def test_a_file_without_a_softmax(name: str, small: Path, small_batch: Batch, expected: Values, load: Load) -> None:
    """The reference reads `ArgMax:0`: with it the classes are known; without it nothing says what the numbers are."""
    _without_softmax(small / FILES[name])
    logits = load(name, small).submit(small_batch).result()
    assert np.abs(centred(logits) - centred(expected)).max() < TOLERANCE
    _without(small / FILES[name], CLASSES)
    assert ("expected probabilities" if name == "onnxruntime" else "a Softmax") in refused(name, small, load)


def test_an_ncnn_file_with_a_softmax(small: Path, small_batch: Batch, expected: Values, load: Load) -> None:
    """Its numbers are others, their order is the same, and so is the answer."""
    text = (small / NCNN).read_text().replace(" 1 1 avgpool out0 ", " 1 1 avgpool logits ")
    magic, counts, *layers = text.splitlines()
    layer_count, blobs = map(int, counts.split())
    more = [magic, f"{layer_count + 1} {blobs + 1}", *layers, "Softmax prob 1 1 logits out0 0=0 1=1"]
    (small / NCNN).write_text("\n".join(more) + "\n")
    given = load("ncnn", small).submit(small_batch).result()
    assert np.allclose(given.sum(axis=1), 1, atol=1e-5)
    assert (given.argmax(axis=1) == expected.argmax(axis=1)).all()
    write_config(small / FILE, replace(read_config(small / FILE), classes=9))
    assert "gives [2, 10] for 2 images, expected [n, 9]" in refused("ncnn", small, load)


def test_a_pytorch_program_with_a_softmax_is_told(small: Path, load: Load) -> None:
    """A state dict has weights alone, and no end to mistake; what does have one is a program."""
    torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Softmax(-1))).save(str(small / PYTORCH))
    assert "it is a TorchScript archive, which is a program" in refused("pytorch", small, load)


@pytest.mark.parametrize("name", COUNT_BACKGROUND)
@pytest.mark.parametrize(
    "renamed",
    [
        {b"input_tensor": b"other_tensor"},
        {b"softmax_tensor": b"another_tensor", b"ArgMax:0": b"Answer:0", b"\x06ArgMax\x12": b"\x06Answer\x12"},
    ],
    ids=["input", "both outputs"],
)
def test_other_names_are_told(renamed: dict[bytes, bytes], name: str, small: Path, load: Load) -> None:
    path = small / FILES[name]
    content = path.read_bytes()
    for old, new in renamed.items():
        content = content.replace(old, new)
    path.write_bytes(content)
    assert f"{next(iter(renamed)).decode()}:0" in refused(name, small, load)


def _without(path: Path, output: str) -> None:
    """The file without one of its two outputs."""
    if path.name == ONNX:
        document = onnx.load(path)
        for part in (document.graph.output, document.graph.node):
            kept = [one for one in part if output not in (one.name, *getattr(one, "output", []))]
            del part[:]
            part.extend(kept)
        onnx.save(document, path)
    else:
        definition = tf.compat.v1.GraphDef.FromString(path.read_bytes())
        kept = [node for node in definition.node if f"{node.name}:0" != output]
        path.write_bytes(tf.compat.v1.GraphDef(node=kept).SerializeToString())


@pytest.mark.parametrize("name", COUNT_BACKGROUND)
def test_a_file_that_gives_classes_alone(
    name: str, small: Path, small_batch: Batch, expected: Values, load: Load
) -> None:
    _without(small / FILES[name], PROBABILITIES)  # as the official app is content with
    logits = load(name, small).submit(small_batch).result()
    assert np.abs(centred(logits) - centred(expected)).max() < TOLERANCE
    write_config(small / FILE, replace(read_config(small / FILE), classes=11))
    assert "gives [1, 11] for 1 images, expected [n, 12]" in refused(name, small, load)


@pytest.mark.parametrize("name", COUNT_BACKGROUND)
def test_images_of_another_size_are_told(name: str, small: Path, load: Load) -> None:
    write_config(small / FILE, replace(read_config(small / FILE), image=40))
    message = refused(name, small, load)
    assert "36" in message
    assert "40, 40" in message


@pytest.mark.parametrize("name", NAMES)
def test_the_profile_of_other_weights_is_refused(name: str, small_files: Path, load: Load) -> None:
    own, other = ("torch", "tf") if name in ("pytorch", "ncnn") else ("tf", "torch")
    load(name, small_files, extra={"variant": own})
    with pytest.raises(InputError, match="use --profile"):
        load(name, small_files, extra={"variant": other})
