"""Files that several tests read: the miniature, written once, and small SQuAD datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bench_bert.config import FILE, BertConfig, write_config
from bench_bert.dataset import Dataset
from bench_bert.standins import SIZES
from bench_bert.standins.miniature import WRITERS, prepare, write_weights

Paragraph = tuple[str, list[tuple[str, list[str]]]]


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder, with its weights in every format."""
    folder = tmp_path_factory.mktemp("mini")
    prepare(folder)
    for name in WRITERS:
        write_weights(folder / "model" / name)
    return folder


@pytest.fixture(scope="session")
def mini_dataset(mini: Path) -> Dataset:
    return Dataset(mini, **SIZES)


@pytest.fixture(scope="session")
def squad_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Paragraph], list[str]], Path]:
    """A profile's folder with (context, [(question, answers)]) as SQuAD v1.1, ids q0, q1, ..., and a `vocab.txt`."""

    def write(paragraphs: list[Paragraph], pieces: list[str]) -> Path:
        folder = tmp_path_factory.mktemp("squad")
        for name in ("data", "model"):
            (folder / name).mkdir()
        (folder / "data" / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
        (folder / "data" / "dev-v1.1.json").write_text(json.dumps(_document(paragraphs)), encoding="utf-8")
        write_config(folder / "model" / FILE, BertConfig(vocab_size=len(pieces)))
        return folder

    return write


def _document(paragraphs: list[Paragraph]) -> dict[str, Any]:
    numbers = count()
    body = []
    for context, asked in paragraphs:
        qas = []
        for question, answers in asked:
            spans = [{"text": answer, "answer_start": context.find(answer)} for answer in answers]
            qas.append({"id": f"q{next(numbers)}", "question": question, "answers": spans})
        body.append({"context": context, "qas": qas})
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": body}]}
