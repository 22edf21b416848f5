"""All five backends give the logits of one PyTorch model, on a small network and on ResNet-50 in full.

Seeded random weights, 4 generated images, FP32. ResNet-50's logits are within 6.4, and the smallest margin of a
best class 0.0185. The greatest difference of a logit, measured on CPU: ONNX Runtime 2.2e-4, TensorFlow 1.9e-4, TVM
1.9e-4, ncnn 2.6e-4, PyTorch (batch norms folded) 2.3e-4. Half a minute, 2 GB of memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bench_resnet50 import (
    backend_ncnn,
    backend_onnxruntime,
    backend_pytorch,
    backend_tensorflow,
    backend_tvm,
    synthetic_images,
)
from bench_resnet50.agreement import compare, difference, main, margin
from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.dataset import Batch
from bench_resnet50.formats import PYTORCH, random_tensors
from bench_resnet50.model import ResNet
from bench_resnet50.preprocess import normalised
from bench_resnet50.synthetic import FILES, WRITERS, write_weights
from loadgen.contracts import BackendOptions

BACKENDS: dict[str, Any] = {
    "onnxruntime": backend_onnxruntime.Backend,
    "tensorflow": backend_tensorflow.Backend,
    "tvm": backend_tvm.Backend,
    "ncnn": backend_ncnn.Backend,
    "pytorch": backend_pytorch.Backend,
}
CONFIGS = {
    "small": ResNetConfig(layers=(2, 1), width=12, classes=10, image=36),
    "full": ResNetConfig(),
}
IMAGES = 4
TOLERANCE = 1e-3
SEED = 1


class Case:
    """One network in all formats, images, and what PyTorch makes of them."""

    def __init__(self, folder: Path, config: ResNetConfig, variant: str) -> None:
        self.folder = folder
        tensors = random_tensors(config, SEED)
        if variant == "torch":
            tensors["conv1.weight"] *= np.float32(255 * 0.225)  # they are made for pixels that are so much greater
        write_config(folder / FILE, config)
        for name, (_, write) in WRITERS.items():
            write(folder / name, config, tensors)
        side = config.image
        rng = np.random.default_rng(5)
        flat = rng.integers(0, 256, (IMAGES, 4, 4, 3))  # 16 patches of colour with noise on them
        noise = rng.integers(-40, 41, (IMAGES, side, side, 3))
        pixels = flat.repeat(-(-side // 4), axis=1).repeat(-(-side // 4), axis=2)[:, :side, :side] + noise
        self.batch = Batch(pixels.clip(0, 255).astype(np.uint8), variant)
        self.expected = self._logits(config, tensors)

    def _logits(self, config: ResNetConfig, tensors: dict[str, Any]) -> npt.NDArray[np.float32]:
        net = ResNet(config).eval()
        net.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()}, strict=False)
        with torch.inference_mode():
            images = torch.from_numpy(normalised(self.batch)).permute(0, 3, 1, 2).contiguous()
            logits: npt.NDArray[np.float32] = net(images).numpy()
        return logits


@pytest.fixture(scope="module", params=[("small", "torch"), ("small", "tf"), ("full", "tf")], ids=" ".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    size, variant = request.param
    return Case(tmp_path_factory.mktemp("model"), CONFIGS[size], variant)


@pytest.mark.parametrize("name", BACKENDS)
def test_equals_pytorch(name: str, case: Case) -> None:
    backend = BACKENDS[name](BackendOptions(case.folder, threads=2, max_batch=IMAGES))
    backend.load()
    logits = backend.submit(case.batch).result()
    alone = backend.predict(Batch(case.batch.images[1:2], case.batch.variant))
    backend.close()
    assert logits.shape == case.expected.shape
    assert logits.dtype == np.float32
    print(f"{name}: difference {difference(logits, case.expected):.1e}", end=" ")
    print(f"logits within {np.abs(case.expected).max():.1f}, smallest margin {margin(case.expected):.2e}")
    assert difference(logits, case.expected) < TOLERANCE < margin(case.expected) / 2, "so no class can differ"
    assert (logits.argmax(axis=1) == case.expected.argmax(axis=1)).all()
    assert difference(alone, case.expected[1:2]) < TOLERANCE


def test_images_and_logits_are_worth_comparing(case: Case) -> None:
    assert case.expected.std() > 0.1
    assert len(set(case.expected.argmax(axis=1))) > 1


def test_every_backend_and_file_is_compared() -> None:
    assert set(FILES) == set(BACKENDS)
    assert set(FILES.values()) == set(WRITERS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The synthetic profile's, of a small network and 20 images."""
    (tmp_path / "model").mkdir()
    write_config(tmp_path / "model" / FILE, ResNetConfig(layers=(1, 1), width=8, classes=50, image=64))
    synthetic_images.write(tmp_path / "data", 20)
    return tmp_path


PAIR = ["--backend", "onnxruntime", "--backend", "pytorch", "--threads", "1"]


def test_the_command_says_how_far_backends_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--images", "19", *PAIR]) == 0
    printed = capsys.readouterr().out
    assert "pytorch: 19 images in " in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("onnxruntime, pytorch")]
    apart, least, differ = line.split()[2:]
    assert 0 < float(apart) < 1e-4 < float(least)
    assert differ == "0"


def test_the_command_fails_where_classes_differ(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_weights(folder / "model" / PYTORCH, 2)
    assert main([str(folder), *PAIR]) == 1
    assert int(capsys.readouterr().out.splitlines()[-1].split()[-1]) > 0


def test_a_constant_added_to_a_row_is_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    logits = np.array([[1, 2, 4], [8, 4, 1]], np.float32)
    moved = logits + np.array([[64], [-2]], np.float32)
    assert difference(logits, moved) == 0
    assert margin(logits) == 2
    assert compare({"a": logits, "b": moved}) == 0
    assert compare({"a": logits, "b": moved, "c": logits[::-1]}) == 1
    assert "a, b" in capsys.readouterr().out
