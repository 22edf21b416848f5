"""Prompts byte for byte, the tokenizer beside Hugging Face's, and files that are wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2TokenizerFast

from bench_gpt_j.benchmark import BENCHMARK, MINI
from bench_gpt_j.config import GPTJConfig, read_config, write_config
from bench_gpt_j.dataset import Dataset
from bench_gpt_j.official import END, PROMPT
from bench_gpt_j.standins.miniature import CONFIG, prepare
from bench_gpt_j.tokenizer import Tokenizer
from loadgen.contracts import InputError
from loadgen.harness.cli import invoke


@pytest.fixture
def folder(mini: Path, tmp_path: Path) -> Path:
    """A copy, to damage."""
    shutil.copytree(mini, tmp_path / "mini")
    return tmp_path / "mini"


def opened(folder: Path) -> Dataset:
    return Dataset(folder, **MINI.dataset_options)


def test_the_prompt_is_the_references() -> None:
    """Byte for byte: the digest is that of `prompt_input` in the reference's `language/gpt-j/dataset.py`, filled in."""
    text = PROMPT.format(instruction="DO", input="NEWS")
    assert len(text) == 210
    found = hashlib.sha256(text.encode()).hexdigest()
    assert found == "86e96706410061bacf78791e1712e16eaafd57dd92c2c88f13ec9a77e5c7224f"
    assert text.endswith("### Response:"), "nothing follows the colon"


def test_a_prompt_of_the_data(mini_dataset: Dataset, mini: Path) -> None:
    row = json.loads((mini / "data" / "cnn_eval.json").read_text(encoding="utf-8"))[3]
    assert set(row) == {"instruction", "input", "output"}
    text = mini_dataset.tokenizer.decode(mini_dataset.prompts[3].tolist())
    assert text == PROMPT.format(**{key: row[key] for key in ("instruction", "input")})
    assert mini_dataset.references[3] == row["output"]


def test_long_articles_lose_their_end_and_that_of_the_prompt(mini: Path) -> None:
    short = Dataset(mini, **{**MINI.dataset_options, "longest": 90})
    whole = opened(mini)
    for cut, prompt in zip(short.prompts, whole.prompts, strict=True):
        assert cut.tolist() == prompt[:90].tolist(), "on the right, as the reference does"
    assert max(len(prompt) for prompt in short.prompts) == 90


@pytest.mark.parametrize("text", ["A nurse sold 12 boats.", "Zürich — “quoted”\n\n  two  blanks", "naïve 東京 🙂"])
def test_ids_are_those_of_hugging_face(text: str, mini: Path, mini_dataset: Dataset) -> None:
    theirs = GPT2TokenizerFast(tokenizer_file=str(mini / "model" / "tokenizer.json"))
    assert mini_dataset.tokenizer.encode(text) == theirs(text)["input_ids"]
    assert mini_dataset.tokenizer.decode(mini_dataset.tokenizer.encode(text)) == text
    assert list(mini_dataset.tokenizer.encode_all([text, ""])) == [theirs(text)["input_ids"], []]
    assert theirs.convert_tokens_to_ids(END) == mini_dataset.tokenizer.end


def test_files_are_the_same_each_time(mini: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    for name in ("data/cnn_eval.json", "model/config.json", "model/tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (mini / name).read_bytes(), name


ROW = {"instruction": "Summarize:", "input": "A nurse.", "output": "The nurse."}
WRONG: dict[str, tuple[Any, str]] = {
    "an empty article": ([ROW, ROW | {"input": " \n"}], "sample 1 has an empty 'input'"),
    "no summary": ([{"instruction": "x", "input": "y"}], "sample 0 has no text 'output'"),
    "a number": ([ROW | {"input": 7}], "sample 0 has no text 'input'"),
    "no rows": ([], "holds no list of articles"),
    "an object": ({"rows": [ROW]}, "holds no list of articles"),
    "a list in a list": ([[ROW]], "sample 0 has no text 'instruction'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_are_refused_by_sample(case: str, folder: Path) -> None:
    document, message = WRONG[case]
    (folder / "data" / "cnn_eval.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"cnn_eval\.json: {message}"):
        opened(folder)


def test_data_in_another_encoding_are_refused(folder: Path) -> None:
    text = json.dumps([ROW | {"input": "Zürich"}], ensure_ascii=False)
    (folder / "data" / "cnn_eval.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"cnn_eval\.json: byte \d+ is not UTF-8"):
        opened(folder)


def test_the_tokenizer_is_missing_or_another(folder: Path) -> None:
    file = folder / "model" / "tokenizer.json"
    document = json.loads(file.read_text())
    file.unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file.*nothing is fetched"):
        opened(folder)
    file.write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer"):
        opened(folder)
    document["added_tokens"] = []
    document["model"]["vocab"].pop(END, None)
    with pytest.raises(InputError, match=r"has no token <\|endoftext\|>"):
        Tokenizer(json.dumps(document).encode())


def test_the_context_is_too_short_for_the_answers(folder: Path) -> None:
    write_config(folder / "model" / "config.json", GPTJConfig(640, 96, 2, 4, 200, 12), 574)
    with pytest.raises(InputError, match=r"prompts of up to 192 tokens and answers of up to 34 are over .* 200"):
        opened(folder)


def test_a_tokenizer_of_a_larger_model(folder: Path) -> None:
    write_config(folder / "model" / "config.json", GPTJConfig(500, 96, 2, 4, 512, 12), 499)
    with pytest.raises(InputError, match="the model knows 500 tokens, its tokenizer 575"):
        opened(folder)


def test_a_config_goes_there_and_back(tmp_path: Path) -> None:
    write_config(tmp_path / "config.json", CONFIG, 574)
    assert read_config(tmp_path / "config.json") == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "'model_type' is 'llama'"),
        ({"n_head": 5}, "n_embd 96 is not divisible by n_head 5"),
        ({"rotary_dim": 26}, "rotary_dim is 26, expected an even number up to 24"),
        ({"n_layer": "2"}, "'n_layer' is '2'"),
    ],
)
def test_wrong_sizes_are_refused(change: dict[str, Any], message: str, mini: Path, tmp_path: Path) -> None:
    document = json.loads((mini / "model" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(document | change))
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "config.json")


def test_wrong_data_end_a_run_with_a_sentence(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "model" / "tokenizer.json").write_text("[1]")
    arguments = ["run", "--data", str(folder), "--output", str(folder / "out")]
    assert invoke(BENCHMARK, arguments) == 2
    said = "".join(capfd.readouterr())
    assert "tokenizer.json" in said
    assert "Traceback" not in said
