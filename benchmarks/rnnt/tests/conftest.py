"""Files and models that several tests use: the miniature, written once, small models and small LibriSpeeches."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from bench_rnnt.config import RnntConfig
from bench_rnnt.dataset import Dataset
from bench_rnnt.features import RATE
from bench_rnnt.model import Rnnt
from bench_rnnt.official import CHECKPOINT, MANIFEST
from bench_rnnt.standins.miniature import prepare, write_weights

torch.set_num_threads(1)
if importlib.util.find_spec("triton"):
    os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder, with its weights."""
    folder = tmp_path_factory.mktemp("mini")
    prepare(folder)
    write_weights(folder / "model" / CHECKPOINT)
    return folder


@pytest.fixture(scope="session")
def mini_dataset(mini: Path) -> Dataset:
    """All of it loaded."""
    dataset = Dataset(mini)
    dataset.load(range(dataset.total_count))
    return dataset


@pytest.fixture
def random_model() -> Callable[..., Rnnt]:
    """(seed, config, blank) -> a model in 64 bits; blank is added to the blank's bias."""

    def make(seed: int, config: RnntConfig, blank: float = 0.0) -> Rnnt:
        torch.manual_seed(seed)
        model = Rnnt(config).double().requires_grad_(False)
        for parameter in model.parameters():
            parameter.mul_(3)  # as PyTorch draws them, a label depends on hardly anything
        model.joint.net[3].bias[-1] += blank
        return model.eval()

    return make


Said = tuple[Any, str]  # samples, transcript


@pytest.fixture
def librispeech(tmp_path: Path) -> Callable[..., Path]:
    """Writes utterances as FLAC and their manifest -> the profile's folder."""

    def write(said: Sequence[Said], rate: int = RATE, subtype: str = "PCM_16") -> Path:
        entries = []
        for number, (wave, text) in enumerate(said):
            name = f"84/121123/84-121123-{number:04}"
            path = tmp_path / "data" / "LibriSpeech" / "dev-clean" / f"{name}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.asarray(wave), rate, subtype=subtype)
            entries.append(_entry(f"dev-clean-wav/{name}.wav", len(wave), text))
        (tmp_path / "data" / MANIFEST).write_text(json.dumps(entries))
        return tmp_path

    return write


def _entry(name: str, samples: int, text: str) -> dict[str, Any]:
    """What the official manifest says of an utterance, as far as it is read, and a little more."""
    file = {"channels": 1, "sample_rate": 16000.0, "fname": name, "speed": 1, "num_samples": samples}
    seconds = samples / RATE
    return {
        "files": [file],
        "original_duration": seconds,
        "original_num_samples": samples,
        "transcript": text,
    }
