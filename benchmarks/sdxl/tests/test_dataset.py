"""Captions, tokens, latents and statistics: the official files, and what is wrong with others."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_sdxl.captions import COLUMNS, read_captions
from bench_sdxl.dataset import Dataset, read_latents, read_statistics
from bench_sdxl.layout import read_tokenizers
from bench_sdxl.official import LATENTS, PIPE
from bench_sdxl.standins import SIZES
from bench_sdxl.standins.formats import write_captions, write_tokenizer
from bench_sdxl.standins.sentences import captions, vocabulary
from bench_sdxl.tokenizer import BEGIN, END, NEGATIVE, Tokenizer
from loadgen.contracts import InputError

SIZE = 2_000
SAID = (
    "A man that says \"Cheese Shop\" on it. It's they're don't 1234!!! @#$% x_y-z/w",
    "caf\u00e9 \u00fcber \u4f60\u597d \U0001f600 \u00bd \u0661 \u2019s",
    NEGATIVE,
    "a b c d " * 60,
    "",
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Tokenizer, Any]]:
    """Ours and transformers', of both kinds, on a vocabulary that has a piece for every byte."""
    pieces, merges = vocabulary(SIZE)
    pairs = []
    for name, pad in (("tokenizer", END), ("tokenizer_2", "!")):
        folder = tmp_path_factory.mktemp(name)
        write_tokenizer(folder, pieces, merges, pad, 77)
        theirs: Any = transformers.CLIPTokenizer.from_pretrained(str(folder))
        pairs.append((Tokenizer(folder), theirs))
    return pairs


def official_row(tokenizer: Any, text: str) -> list[int]:
    found = tokenizer(text, padding="max_length", max_length=77, truncation=True)["input_ids"]
    return [int(number) for number in found]


@pytest.mark.parametrize("text", [*SAID, *captions(5)])
def test_tokens_are_transformers(text: str, tokenizers: list[tuple[Tokenizer, Any]]) -> None:
    for ours, theirs in tokenizers:
        assert ours.row(text, 77) == official_row(theirs, text)


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("abst !'.,\"-1_\u00e9\u4f60&d"), max_size=40))
def test_tokens_of_any_text_are_transformers(tokenizers: list[tuple[Tokenizer, Any]], text: str) -> None:
    for ours, theirs in tokenizers:
        assert ours.row(text, 77) == official_row(theirs, text)


def test_a_row_is_cut_and_padded_as_officially(tokenizers: list[tuple[Tokenizer, Any]]) -> None:
    (first, _), (second, _) = tokenizers
    for text in ("x " * 200, "x"):
        rows = first.row(text, 77), second.row(text, 77)
        assert {len(row) for row in rows} == {77}
        assert {row[0] for row in rows} == {first.ids[BEGIN]}
        assert all(first.ids[END] in row for row in rows)
    assert rows[0][-1] == first.ids[END], "the first pads with the end"
    assert rows[1][-1] == 0, "the second with an exclamation mark, number 0"


def test_the_padding_may_be_written_with_its_properties(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, *vocabulary(600), "!", 77)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"pad_token": {"content": "!", "lstrip": False}}))
    assert Tokenizer(tmp_path).pad == 0


def test_the_miniature_has_a_piece_for_each_word(dataset: Dataset) -> None:
    assert dataset.captions[0].startswith("a ")
    for tokenizer in dataset.tokenizers:
        assert len(tokenizer.pieces(dataset.captions[0])) == len(dataset.captions[0].split())
        assert len(tokenizer.pieces(NEGATIVE)) == 17


def test_a_batch_has_the_prompts_in_order_and_the_fixed_latent(dataset: Dataset) -> None:
    batch = dataset.gather(np.array([7, 3]))
    length = batch.ids.shape[1]
    assert batch.ids[1].tolist() == dataset.tokenizers[0].row(dataset.captions[3], length)
    assert batch.ids_2[0].tolist() == dataset.tokenizers[1].row(dataset.captions[7], length)
    assert batch.latents.shape == (1, 4, 8, 8)


def test_a_caption_beyond_the_length_is_cut(mini: Path, tmp_path: Path) -> None:
    shutil.copytree(mini, tmp_path, dirs_exist_ok=True)
    write_captions(tmp_path / "data" / "captions" / "captions.tsv", ["a red circle " * 50, "a ring"], 32)
    batch = Dataset(tmp_path, count=2).gather(np.array([0]))
    assert batch.ids.shape == batch.ids_2.shape == (1, 20)


def test_quotes_are_read_as_the_csv_module_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "captions.tsv"
    said = ['It says "Cheese Shop" on it.', "plain", '"all"', "a, b"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([[1, 2, caption, 3, 4, "x.jpg", "http://x"] for caption in said])
    assert read_captions(path, 4) == said


HEAD = "\t".join(COLUMNS)
ROW = "1\t2\tA dog.\t3\t4\tx\ty"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{HEAD}\n{ROW}\n1\t2\tA\tdog.\t3\t4\tx\ty\n", r"captions.tsv:3: 8 values, 7 columns: .* no tab"),
        (f"{HEAD}\n{ROW}\n{ROW}\n{ROW}\n", r"captions.tsv: 3 captions, 2 expected"),
        (f"{HEAD}\n{ROW}\n", r"captions.tsv: 1 captions, 2 expected"),
        (f"{HEAD}\n{ROW}\n1\t2\t \t3\t4\tx\ty\n", r"captions.tsv:3: the caption is empty"),
        (f"id\ttext\n{ROW}\n", r"captions.tsv:1: no column 'caption'"),
        ("", r"captions.tsv:1: no column 'caption'"),
    ],
)
def test_wrong_captions_are_named(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=fault):
        read_captions(path, 2)


def test_5001_captions_are_refused(tmp_path: Path) -> None:
    write_captions(tmp_path / "captions.tsv", ["a dog"] * 5001, 8)
    with pytest.raises(InputError, match="5,001 captions, 5,000 expected"):
        read_captions(tmp_path / "captions.tsv", 5000)


@pytest.mark.parametrize("number", ["", "_2"])
def test_a_tokenizer_of_more_words_than_its_encoder_is_refused(number: str, mini: Path, tmp_path: Path) -> None:
    shutil.copytree(mini / "model", tmp_path / "model")
    config = tmp_path / "model" / PIPE / f"text_encoder{number}" / "config.json"
    sizes = json.loads(config.read_text())
    config.write_text(json.dumps(sizes | {"vocab_size": sizes["vocab_size"] - 1}))
    with pytest.raises(InputError, match=rf"the encoder knows \d+ pieces, its tokenizer{number} has \d+"):
        read_tokenizers(tmp_path / "model")


SHAPE = (1, 4, 8, 8)


@pytest.mark.parametrize("kind", ["npy", "pt"])
def test_latents_are_read_in_both_official_forms(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).standard_normal(SHAPE, np.float32)
    (tmp_path / "latents").mkdir()
    if kind == "npy":
        np.save(tmp_path / LATENTS[0], noise)
    else:
        torch.save(torch.from_numpy(noise), tmp_path / LATENTS[1])
    np.testing.assert_array_equal(read_latents(tmp_path, SHAPE), noise)


@pytest.mark.parametrize("kind", ["shape", "nan", "text", "object", "none"])
def test_wrong_latents_are_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / LATENTS[0]
    path.parent.mkdir()
    values: Any = {"shape": np.zeros((1, 4, 9, 8)), "nan": np.full(SHAPE, np.nan), "object": np.array([{}])}.get(kind)
    if values is not None:
        np.save(path, values)
    elif kind == "text":
        path.write_text("no array")
    with pytest.raises(InputError, match=r"latents.npy: .*put the official"):
        read_latents(tmp_path, SHAPE)


def test_wrong_statistics_are_named(tmp_path: Path) -> None:
    path = tmp_path / "val2014.npz"
    for arrays, fault in (
        ({"mu": np.zeros(3)}, "no statistics mu and sigma"),
        ({"mu": np.zeros(3), "sigma": np.zeros((3, 4))}, r"mu \[3\] and sigma \[3, 4\] do not fit"),
    ):
        np.savez(path, **arrays)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=rf"val2014.npz: {fault}"):
            read_statistics(path)


def test_a_missing_half_of_the_model_is_listed(mini: Path, tmp_path: Path) -> None:
    shutil.copytree(mini, tmp_path, dirs_exist_ok=True)
    for name in ("vae", "tokenizer_2"):
        shutil.rmtree(tmp_path / "model" / PIPE / name)
    with pytest.raises(InputError, match=r"checkpoint_pipe: the model lacks vae, tokenizer_2"):
        Dataset(tmp_path, **SIZES)


def test_hugging_faces_layout_is_read_too(mini: Path, dataset: Dataset, tmp_path: Path) -> None:
    shutil.copytree(mini / "data", tmp_path / "data")
    shutil.copytree(mini / "model" / PIPE, tmp_path / "model")
    assert (tmp_path / "model" / "scheduler" / "scheduler_config.json").is_file()
    assert Dataset(tmp_path, **SIZES).captions == dataset.captions
