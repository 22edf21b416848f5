"""The synthetic profile: data of SQuAD's size, and random weights in every format, made when they are missing."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_bert import backend_onnxruntime, backend_pytorch, backend_tensorflow
from bench_bert.benchmark import BENCHMARK
from bench_bert.config import BertConfig, read_config, write_config
from bench_bert.dataset import Dataset
from bench_bert.official import FAKE_QUANT
from bench_bert.standins.synthetic import WRITERS, prepare, write_weights
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.cli import invoke

SYNTHETIC = BENCHMARK.profiles["synthetic"]
MAKER = {"weights": SYNTHETIC.weights}
SMALL = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
RUNTIMES = [
    (backend_onnxruntime, "float32"),
    (backend_pytorch, "float32"),
    (backend_tensorflow, "float32"),
    (backend_onnxruntime, "int8"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile's folder, with a small model in BERT-large's place."""
    folder = tmp_path_factory.mktemp("synthetic")
    (folder / "model").mkdir()
    write_config(folder / "model" / "bert_config.json", SMALL)
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return Dataset(folder, **SYNTHETIC.dataset_options)


def test_as_many_questions_windows_and_tokens_as_squad(dataset: Dataset) -> None:
    lengths = dataset.costs(np.arange(dataset.total_count))
    assert (len(dataset.questions), dataset.total_count) == (10_570, 10_833)
    assert np.mean(lengths) == pytest.approx(177, abs=0.5)
    assert lengths.max() == 384
    assert np.percentile(lengths, 5) < 100


def test_every_line_of_a_full_vocabulary_can_be_reached(dataset: Dataset, folder: Path) -> None:
    pieces = (folder / "data" / "vocab.txt").read_text().splitlines()
    assert len(pieces) == len(set(pieces)) == BertConfig().vocab_size
    assert [pieces.index(p) for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 100, 101, 102, 103]
    used = set(np.concatenate([feature.ids for feature in dataset.features]).tolist())
    assert len(used) > 20_000, "memory is read all over, as with real text"
    assert 100 not in used, "no word is unknown"


def test_answers_stand_where_the_file_says(folder: Path) -> None:
    document = json.loads((folder / "data" / "dev-v1.1.json").read_text())
    assert len(document["data"]) == 48
    for paragraph in document["data"][7]["paragraphs"]:
        for answer in (a for qa in paragraph["qas"] for a in qa["answers"]):
            at = answer["answer_start"]
            assert answer["text"]
            assert paragraph["context"][at : at + len(answer["text"])] == answer["text"]


def test_backends_make_their_missing_file_and_agree(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    shutil.copy(folder / "model" / "bert_config.json", tmp_path)
    batch = dataset.gather(np.array([0, 5]))
    answers = []
    for runtime, dtype in RUNTIMES:
        module: Any = runtime
        options = BackendOptions(tmp_path, threads=1, dtype=dtype, extra=MAKER)
        before = set(tmp_path.iterdir())
        backend = module.Backend(options)
        backend.load()
        assert len(set(tmp_path.iterdir()) - before) == 1, "only the file that it reads"
        answers.append(backend.predict(batch))
        backend.close()
    assert {path.name for path in tmp_path.iterdir()} == {*WRITERS, "bert_config.json"}
    differences = [np.abs(other - answers[0]).max() for other in answers[1:]]
    assert max(differences[:2]) < 1e-4
    assert 1e-4 < differences[2] < 0.5, "int8"


def test_a_file_that_is_there_is_kept(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "model" / "bert_config.json", tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"mine")
    backend = backend_onnxruntime.Backend(BackendOptions(tmp_path, extra=MAKER))
    with pytest.raises(InputError, match="cannot load it"):
        backend.load()
    assert (tmp_path / "model.onnx").read_bytes() == b"mine"


def test_synthesize_makes_files_ahead(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["synthesize", "--data", str(folder)]
    assert invoke(BENCHMARK, [*command, "--backend", "pytorch"]) == 0
    assert {path.name for path in (folder / "model").iterdir()} == {"model.pytorch", "bert_config.json"}
    assert invoke(BENCHMARK, command) == 0
    made = {path.name for path in (folder / "model").iterdir()}
    assert made == {*WRITERS, "bert_config.json"} - {FAKE_QUANT}
    progress = capfd.readouterr().err
    assert progress.count("making") == progress.count("done in") == 3, "none is made twice"


def test_preparing_twice_changes_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    prepare(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_the_model_is_bert_large(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("vocab.txt", "dev-v1.1.json"):
        (tmp_path / "data" / name).write_text("")
    prepare(tmp_path)
    assert read_config(tmp_path / "model" / "bert_config.json") == BertConfig()


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path / "bert_config.json", BertConfig())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 10**9))
    with pytest.raises(InputError, match=r"model.onnx: needs 1.3 GB, 1.0 GB are free: make room"):
        write_weights(tmp_path / "model.onnx", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["bert_config.json"]


def test_a_run_says_that_it_is_no_result(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--profile", "synthetic", "--scenario", "SingleStream", "--mode", "performance"]
    arguments += ["--duration", "1", "--threads", "1", "--data", str(folder), "--output", str(tmp_path)]
    invoke(BENCHMARK, arguments)
    assert "The synthetic profile is not a benchmark result" in " ".join(capfd.readouterr().out.split())
    assert json.loads((tmp_path / "results.json").read_text())["benchmark_result"] is False
