"""The tokenizer, on cases worked out by hand and against an implementation that is not ours."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import transformers

from bench_bert.tokenizer import Tokenizer, basic_tokens, read_vocabulary
from loadgen.contracts import InputError

TheirTokenizer: Any = transformers.BertTokenizer  # has no types
TheirFastTokenizer: Any = transformers.BertTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = [
    *LETTERS,
    *(f"##{c}" for c in LETTERS),
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    *(
        "un",
        "##aff",
        "##able",
        "##s",
        "the",
        "cafe",
        "naive",
        "uber",
        "中",
        "国",
        "—",
        "“",
        "”",
        "¿",
        "「",
        "」",
    ),
    *("ア", "##ア", "н", "##е", "##т", "한", "##국", "½", "€", "ß", "##ß", "straße", "i", "##́", "strom"),
]

HARD = [
    "",
    "   \t\n\r ",
    "unaffables the UNAFFABLE",
    "Café naïve Über ÀÉÎÕÜ Ångström",
    "e\u0301cole decomposed, İstanbul, ǅ",
    "中国 mixed中国with latin，and「quotes」。",
    "アイス 한국어 нет straße ½ €5 x²",
    "don't stop-me_now... a.b/c\\d (e)[f]{g}|h~i`j^k@l#m$n%o&p*q+r=s<t>u;v:w\"x!",
    "nbsp\u00a0narrow\u202fideographic\u3000em\u2003thin\u2009end",
    "zero\u200bwidth\u200djoin\ufeffbom soft\u00adhyphen rtl\u200fmark",
    "control\x00nul\x07bell\x1besc\x7fdel\x85nel \ufffd replacement",
    "line\u2028separator\u2029paragraph\x0bvertical\x0cfeed",
    "a" * 100,
    "a" * 101,
    "a" * 250 + " b",
    "\u0301lone accent first",
    "emoji 😀 flag 🇩🇪 𝔘𝔫𝔦 \U00020000 \U0002f800 \ue000",
    "¿Qué? “quoted” — dash – en ‘single’ …",
    "a [SEP] b [MASK].",
    "[CLS]the[PAD] un[UNK]able[SEP]",
    "[sep] [Mask] [SEP [SEP]] [[CLS]",
    "[SEP]",
]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(dict.fromkeys(SPECIAL + PIECES)) + "\n", encoding="utf-8")
    return path


def test_words_by_hand() -> None:
    assert basic_tokens("The Café's\u00a0“naïve” x-ray, 中国!") == (
        ["the", "cafe", "'", "s", "“", "naive", "”", "x", "-", "ray", ",", "中", "国", "!"]
    )


def test_pieces_by_hand() -> None:
    tokenizer = Tokenizer({p: i for i, p in enumerate([*SPECIAL, "un", "##aff", "##able", "a", "##ff"])})
    assert tokenizer.pieces("Unaffable") == ["un", "##aff", "##able"]
    assert tokenizer.pieces("aff") == ["a", "##ff"]
    assert tokenizer.pieces("unaffordable a") == ["[UNK]", "a"], "one unknown part makes the word unknown"


@pytest.mark.parametrize("text", HARD)
@pytest.mark.parametrize("oracle", [TheirTokenizer, TheirFastTokenizer])
def test_equals_transformers(text: str, oracle: Any, vocabulary: Path) -> None:
    ours = Tokenizer(read_vocabulary(vocabulary))
    assert ours.pieces(text) == oracle(str(vocabulary), do_lower_case=True).tokenize(text)


def test_equals_transformers_on_random_unicode(vocabulary: Path) -> None:
    rng = random.Random(5)
    # Basic multilingual plane without surrogates, half of it ASCII; a final sigma depends on its word.
    pool = [chr(c) for c in range(1, 0xD800) if c not in (0x3A3, 0x3C2)]
    ours = Tokenizer(read_vocabulary(vocabulary))
    oracle = TheirTokenizer(str(vocabulary), do_lower_case=True)
    for _ in range(300):
        chars = (rng.choice(pool) if rng.random() < 0.5 else chr(rng.randint(32, 126)) for _ in range(60))
        text = "".join(chars)
        assert ours.pieces(text) == oracle.tokenize(text), repr(text)


def test_ids_are_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[unused0]\n\n[UNK]\n[CLS]\n[SEP]\na\n")
    assert read_vocabulary(path)["a"] == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"a\nb\n", r"no line '\[PAD\]'"), (b"\xff\xfe\x00", "not UTF-8")],
)
def test_a_wrong_vocabulary_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_vocabulary(path)
    assert str(path) in str(caught.value)
