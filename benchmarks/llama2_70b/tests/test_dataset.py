"""OpenOrca as pandas writes it, and whatever else such a file may hold."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from transformers import LlamaTokenizer

from bench_llama2_70b.benchmark import BENCHMARK, MINI
from bench_llama2_70b.config import LlamaConfig, write_config
from bench_llama2_70b.dataset import Dataset
from bench_llama2_70b.orca import read_orca
from bench_llama2_70b.standins import DATA, formats, generate
from bench_llama2_70b.standins.miniature import read_tokenizer_bytes
from bench_llama2_70b.standins.synthetic import lengths, prepare
from bench_llama2_70b.tokenizer import Tokenizer
from loadgen.contracts import InputError
from loadgen.harness.cli import invoke

from .make_golden import FILE, ROWS

TOKENIZER = Tokenizer(read_tokenizer_bytes())
EXAMPLES = generate.evaluation(8)
COLUMNS = dict(formats.columns(EXAMPLES, TOKENIZER))


def frame(columns: dict[str, Any]) -> pd.DataFrame:
    """As the reference's pandas 2 has it: texts are plain objects."""
    made = pd.DataFrame({name: pd.Series(list(values), dtype=object) for name, values in columns.items()})
    for name in columns:
        if name.endswith("length"):
            made[name] = made[name].astype("int64")
    made.columns = made.columns.astype(object)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A profile's folder without data."""
    for name in ("data", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "model" / "tokenizer.model").write_bytes(read_tokenizer_bytes())
    write_config(tmp_path / "model" / "config.json", LlamaConfig(576, max_position_embeddings=300))
    return tmp_path


def opened(folder: Path, columns: dict[str, Any], **options: Any) -> Dataset:
    (folder / "data" / DATA).write_bytes(gzip.compress(formats.pickled(columns)))
    return Dataset(folder, file=DATA, max_new_tokens=64, **options)


def test_pandas_reads_what_we_write(mini: Path) -> None:
    table = pd.read_pickle(mini / "data" / DATA)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 320
    assert table["tok_output_length"].dtype == np.int64
    assert table["origin"].value_counts().to_dict() == dict.fromkeys(("cot", "flan", "niv", "t0"), 80)
    assert table["tok_input"][5][:2] == [1, 1]
    assert (table["tok_input"].map(len) == table["tok_input_length"]).all()


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_we_read_what_pandas_writes(protocol: int, zipped: bool, tmp_path: Path) -> None:
    written = pickle.dumps(frame(COLUMNS), protocol)
    (tmp_path / "x.pkl").write_bytes(gzip.compress(written) if zipped else written)
    table = read_orca(tmp_path / "x.pkl")
    assert table == {name: list(COLUMNS[name]) for name in ("tok_input", "output", "tok_output", "origin")}


GOLDEN: dict[str, str] = json.loads(FILE.read_text())


@pytest.mark.parametrize("form", GOLDEN)
def test_we_read_what_the_references_pandas_wrote(form: str, tmp_path: Path) -> None:
    """pandas 2.1.1 and NumPy 1.26.4, by `make_golden.py`: their pickles name other modules than ours."""
    (tmp_path / "x.pkl.gz").write_bytes(base64.b64decode(GOLDEN[form]))
    table = read_orca(tmp_path / "x.pkl.gz")
    assert [list(map(int, ids)) for ids in table["tok_input"]] == [row["tok_input"] for row in ROWS]
    assert [list(map(int, ids)) for ids in table["tok_output"]] == [row["tok_input"][2:] for row in ROWS]
    assert {name: table[name] for name in ("output", "origin")} == {
        name: [row[name] for row in ROWS] for name in ("output", "origin")
    }


def test_older_names_are_read(tmp_path: Path) -> None:
    """What NumPy 1 and pandas 2 call the same things."""
    written = formats.pickled(COLUMNS)
    assert b"numpy._core.multiarray" in written
    (tmp_path / "x.pkl").write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_orca(tmp_path / "x.pkl")["output"] == list(COLUMNS["output"])


def test_parquet_is_read(tmp_path: Path) -> None:
    frame(COLUMNS).to_parquet(tmp_path / "x.parquet")
    assert read_orca(tmp_path / "x.parquet")["tok_input"] == list(COLUMNS["tok_input"])
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"x\.parquet: not a Parquet file"):
        read_orca(tmp_path / "x.parquet")


class Runs:
    """What would run a command, were it unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch stolen",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Runs()), r"holds a (posix|os).system, which is not read"),
        (pickle.dumps(pd.Timestamp(0)), "holds a pandas"),
        (pickle.dumps({"tok_input": []}), "holds a dict, not a table"),
        (formats.pickled({"output": ["a"]}), "has no column 'tok_input'"),
        (formats.pickled(COLUMNS)[:5000], "x.pkl: "),
        (gzip.compress(formats.pickled(COLUMNS))[:500], "damaged"),
        (b"", "not a pickled pandas table|damaged"),
    ],
)
def test_anything_else_is_refused(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_orca(tmp_path / "x.pkl")
    assert "x.pkl" in str(raised.value)
    assert not (tmp_path / "stolen").exists()


def test_prompts_and_costs(folder: Path) -> None:
    data = opened(folder, COLUMNS)
    batch = data.gather(np.array([3, 0]))
    assert [prompt.tolist() for prompt in batch.prompts] == [COLUMNS["tok_input"][3], COLUMNS["tok_input"][0]]
    assert batch.most.tolist() == [64, 64]
    assert data.costs(np.array([3, 0])).tolist() == [len(COLUMNS["tok_input"][n]) for n in (3, 0)]
    assert opened(folder, COLUMNS, as_long=True).gather(np.array([1])).most.tolist() == [len(COLUMNS["tok_output"][1])]


Change = Callable[[dict[str, Any]], Any]
WRONG: dict[str, tuple[Change, str]] = {
    "empty prompt": (lambda c: c["tok_input"].__setitem__(2, []), "sample 2 has an empty prompt"),
    "no ids": (lambda c: c["tok_input"].__setitem__(2, "text"), "sample 2 has a prompt of str"),
    "unknown id": (lambda c: c["tok_input"].__setitem__(4, [1, 1, 576]), "sample 4 has the token 576"),
    "no beginning": (lambda c: c["tok_input"].__setitem__(5, [7, 8]), "sample 5 begins with 7 and not with <s>"),
    "too long": (lambda c: c["tok_input"].__setitem__(6, [1] * 250), "sample 6 has 250 tokens.*context is 300"),
    "no text": (lambda c: c["output"].__setitem__(1, 5), "answer of sample 1 is a int"),
    "other tokenizer": (
        lambda c: c.update(tok_output=[[n % 570 + 5 for n in ids] for ids in c["tok_output"]]),
        "tokenizer.model: of 8 answers in .* it gives 0 back",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_sample_is_named(fault: str, folder: Path) -> None:
    change, message = WRONG[fault]
    columns = {name: list(values) for name, values in COLUMNS.items()}
    change(columns)
    with pytest.raises(InputError, match=message) as raised:
        opened(folder, columns)
    assert DATA in str(raised.value)


def test_a_wrong_tokenizer_is_named(folder: Path) -> None:
    file = folder / "model" / "tokenizer.model"
    for content in (b"", b"not a model" * 30):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"tokenizer\.model: not a SentencePiece model"):
            opened(folder, COLUMNS)
    file.unlink()
    with pytest.raises(InputError, match=r"tokenizer\.model: no such file"):
        opened(folder, COLUMNS)


def test_a_model_of_another_vocabulary_is_named(folder: Path) -> None:
    write_config(folder / "model" / "config.json", LlamaConfig(300))
    with pytest.raises(InputError, match=r"config.json: the model knows 300 tokens, its tokenizer 576"):
        opened(folder, COLUMNS)


def test_the_tokenizer_is_transformers(mini: Path, mini_dataset: Dataset) -> None:
    """Text and ids, both ways; special tokens are left out."""
    theirs = LlamaTokenizer(str(mini / "model" / "tokenizer.model"), legacy=True)
    for text in mini_dataset.references[::16]:
        ids = theirs(text)["input_ids"]
        assert ids == [1, *mini_dataset.tokenizer.encode(text)]
        assert mini_dataset.tokenizer.decode([*ids, 2, 2]) == theirs.decode([*ids, 2, 2], skip_special_tokens=True)
    assert theirs.convert_tokens_to_ids("▁") == mini_dataset.tokenizer.bare_space()


def test_prompts_are_the_references(mini_dataset: Dataset, mini: Path) -> None:
    """Its `processorca.py` lets transformers tokenise a text that begins with <s>, and appends a bare space."""
    theirs = LlamaTokenizer(str(mini / "model" / "tokenizer.model"), legacy=True)
    texts = pd.read_pickle(mini / "data" / DATA)["input"]
    for index in range(0, 320, 20):
        ids = [*theirs(texts[index])["input_ids"], theirs.convert_tokens_to_ids("▁")]
        assert mini_dataset.prompts[index].tolist() == ids


def test_the_synthetic_profile_has_the_official_form(tmp_path: Path) -> None:
    prepare(tmp_path, count=64)
    data = Dataset(tmp_path, as_long=True)
    assert (data.total_count, data.tokenizer.size) == (64, 32_000)
    assert data.gather(np.arange(64)).most.max() <= 1023
    prompts, answers = lengths(24_576, 1)
    assert np.mean(prompts) == pytest.approx(280, rel=0.01)
    assert np.mean(answers) == pytest.approx(294.45, rel=0.01)
    assert MINI.samples == 320


def test_synthetic_answers_are_as_long_as_the_file_says(tmp_path: Path) -> None:
    """Through the whole harness, with a small Llama in the place of the large one."""
    prepare(tmp_path, config=LlamaConfig(32_000, 32, 64, 1, 4, 2, 2048), count=12)
    arguments = ["run", "--profile", "synthetic", "--scenario", "Offline", "--mode", "accuracy", "--threads", "1"]
    code = invoke(BENCHMARK, [*arguments, "--data", str(tmp_path), "--output", str(tmp_path / "out")])
    (test,) = json.loads((tmp_path / "out" / "results.json").read_text())["tests"]
    _, answers = lengths(12, 1)
    assert test["accuracy"]["values"]["gen_tok_len"] == answers.sum()
    assert code in (0, 1), "12 lengths may be further from the mean than 10 %"
