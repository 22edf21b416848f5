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

from bench_resnet50 import backend_ncnn, backend_onnxruntime, backend_pytorch, backend_tensorflow, backend_tvm
from bench_resnet50.config import FILE, ResNetConfig, write_config
from bench_resnet50.dataset import Batch
from bench_resnet50.formats import random_tensors
from bench_resnet50.model import ResNet
from bench_resnet50.preprocess import normalised
from bench_resnet50.synthetic import FILES, WRITERS
from loadgen.contracts import BackendOptions

BACKENDS: dict[str, Any] = {
    "onnxruntime": backend_onnxruntime.Backend,
    "tensorflow": backend_tensorflow.Backend,
    "tvm": backend_tvm.Backend,
    "ncnn": backend_ncnn.Backend,
    "pytorch": backend_pytorch.Backend,
}
CONFIGS = {
    "small": ResNetConfig(layers=(1, 2, 1), width=12, classes=10, image=36),
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

    def margin(self) -> float:
        """How far the best class is ahead of the second, at least."""
        ordered = np.sort(self.expected, axis=1)
        return float((ordered[:, -1] - ordered[:, -2]).min())


@pytest.fixture(scope="module", params=[("small", "torch"), ("small", "tf"), ("full", "tf")], ids=" ".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    size, variant = request.param
    return Case(tmp_path_factory.mktemp("model"), CONFIGS[size], variant)


def shifted(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """By a constant a row, which the official ONNX file's softmax does not tell: so that the greatest is 0."""
    return np.asarray(logits - logits.max(axis=1, keepdims=True))


@pytest.mark.parametrize("name", BACKENDS)
def test_equals_pytorch(name: str, case: Case) -> None:
    backend = BACKENDS[name](BackendOptions(case.folder, threads=2, max_batch=IMAGES))
    backend.load()
    logits = backend.submit(case.batch).result()
    alone = backend.predict(Batch(case.batch.images[1:2], case.batch.variant))
    backend.close()
    assert logits.shape == case.expected.shape
    assert logits.dtype == np.float32
    difference = float(np.abs(shifted(logits) - shifted(case.expected)).max())
    print(f"{name}: difference {difference:.1e}, logits within {np.abs(case.expected).max():.1f}", end=" ")
    print(f"smallest margin {case.margin():.2e}")
    assert difference < TOLERANCE < case.margin() / 2, "so no class can differ"
    assert (logits.argmax(axis=1) == case.expected.argmax(axis=1)).all()
    assert np.abs(shifted(alone) - shifted(case.expected[1:2])).max() < TOLERANCE


def test_images_and_logits_are_worth_comparing(case: Case) -> None:
    assert case.expected.std() > 0.1
    assert len(set(case.expected.argmax(axis=1))) > 1


def test_every_backend_and_file_is_compared() -> None:
    assert set(FILES) == set(BACKENDS)
    assert set(FILES.values()) == set(WRITERS)
