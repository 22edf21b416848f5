"""The synthetic profile: the official model's size, dev-clean's durations, and as many labels as speech has."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from bench_rnnt.benchmark import BENCHMARK
from bench_rnnt.config import RnntConfig, weight_shapes
from bench_rnnt.dataset import Dataset
from bench_rnnt.features import RATE
from bench_rnnt.model import Rnnt
from bench_rnnt.official import ALPHABET, CHECKPOINT, MANIFEST
from bench_rnnt.pytorch.backend import Backend
from bench_rnnt.pytorch.decoding import Greedy, decode
from bench_rnnt.pytorch.features import Featurizer
from bench_rnnt.standins import generate, synthetic
from bench_rnnt.standins.generate import Spoken
from bench_rnnt.standins.speech import Voice, sentence, speak
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.cli import invoke

SMALL = RnntConfig(16, 1, 1, 12, 1, 16)


def test_as_many_utterances_as_long_as_dev_cleans() -> None:
    seconds = synthetic.durations() / RATE
    assert len(seconds) == BENCHMARK.profiles["synthetic"].samples == 2_513
    assert seconds.mean() == pytest.approx(6.25, abs=0.06)
    assert seconds.sum() / 3600 == pytest.approx(4.364, abs=0.04)
    assert (seconds.min(), seconds.max()) == (pytest.approx(1.445, abs=0.01), pytest.approx(15, abs=0.02))
    assert not (np.diff(seconds[:100]) > 0).all()


@pytest.fixture(scope="module")
def spoken() -> list[Spoken]:
    """Eight utterances of the profile's speech, of two speakers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPEAKERS", 2)
        return list(islice(synthetic.speech(), 8))


def test_texts_are_as_long_as_speech(spoken: list[Spoken]) -> None:
    letters, seconds = (sum(map(len, column)) for column in ((s.text for s in spoken), (s.wave for s in spoken)))
    assert 12 < letters / (seconds / RATE) < 16
    assert all(set(one.text) <= set(ALPHABET) and one.text.split() for one in spoken)


@torch.inference_mode()
def test_the_full_size_model_brings_as_many_labels_as_speech(spoken: list[Spoken]) -> None:
    """10 to 20 a second, most of the alphabet among them, and no frame with all the labels that it may have."""
    tensors = synthetic.random_tensors(RnntConfig(), synthetic.SEED)
    assert sum(value.size for value in tensors.values()) == 45_323_037
    with torch.device("meta"):
        model = Rnnt(RnntConfig())
    model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()}, assign=True)
    samples = torch.tensor([len(one.wave) for one in spoken])
    waves = [torch.from_numpy(one.wave.copy()) for one in spoken]
    x, joined = Featurizer()(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), samples)
    labels = decode(Greedy(model), *model.encoder(x, joined))
    rate = float(labels.counts.sum() / (samples.sum() / RATE))
    assert 10 < rate < 20, rate
    ids = [row[:count] for row, count in zip(labels.ids, labels.counts.tolist(), strict=True)]
    assert len(set(torch.cat(ids).tolist())) > 20
    assert max(len(row) / frames for row, frames in zip(ids, (joined / 2).tolist(), strict=True)) < 3


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve utterances and a small model in the places of 2,513 and of the official size."""

    def speech() -> list[Spoken]:
        rng = np.random.default_rng(0)
        texts = [sentence(rng) for _ in range(12)]
        return [Spoken(0, speak(text, Voice.drawn(rng), rng), text) for text in texts]

    monkeypatch.setattr(synthetic, "speech", speech)
    monkeypatch.setattr(synthetic, "RnntConfig", lambda: SMALL)


def test_files_are_made_when_they_are_missing(few: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["synthesize", "--data", str(tmp_path), "--backend", "pytorch"]
    assert invoke(BENCHMARK, command) == 0
    assert Dataset(tmp_path).total_count == 12
    assert [path.name for path in (tmp_path / "model").iterdir()] == [CHECKPOINT]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert invoke(BENCHMARK, command) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert capfd.readouterr().err.count("done in") == 1


def test_a_run_says_that_it_is_no_result(few: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--profile", "synthetic", "--scenario", "SingleStream", "--mode", "performance"]
    arguments += ["--duration", "1", "--threads", "1", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    invoke(BENCHMARK, arguments)
    assert "The synthetic profile is not a benchmark result" in " ".join(capfd.readouterr().out.split())
    assert json.loads((tmp_path / "out" / "results.json").read_text())["benchmark_result"] is False


def test_a_file_that_is_there_is_kept(few: None, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"mine")
    options = BackendOptions(tmp_path, extra={"weights": BENCHMARK.profiles["synthetic"].weights})
    with pytest.raises(InputError, match="not a PyTorch state dict"):
        Backend(options).load()
    assert (tmp_path / CHECKPOINT).read_bytes() == b"mine"


def test_random_weights_have_every_shape() -> None:
    tensors = synthetic.random_tensors(SMALL, 1)
    assert {name: value.shape for name, value in tensors.items()} == weight_shapes(SMALL)
    assert all(value.dtype == np.float32 for value in tensors.values())


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 10**8))
    with pytest.raises(InputError, match=r"rnnt.pt: needs 0.2 GB, 0.1 GB are free: make room"):
        synthetic.write_weights(tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match=r"needs 0.4 GB, 0.1 GB are free"):
        synthetic.prepare(tmp_path / "synthetic")
    assert not (tmp_path / "synthetic" / "data" / MANIFEST).exists()


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Audio is written by other threads: their failure is the caller's."""
    (tmp_path / "LibriSpeech").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="LibriSpeech"):
        generate.write(tmp_path, [Spoken(0, np.zeros(1_000, np.int16), "one")])
    assert not (tmp_path / MANIFEST).exists()
