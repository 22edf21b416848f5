"""The table of keys, and numbers as C reads them."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.conf.keys import KEYS, is_number, strtod, strtoull
from loadgen.settings import TestSettings


def test_every_key_names_a_field() -> None:
    assert {key.field for key in KEYS.values()} <= {field.name for field in fields(TestSettings)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            ("010", 8),
            ("08", 0),
            ("0x10", 16),
            ("-1", 2**64 - 1),
            ("+7", 7),
            ("1e3", 1),
            ("1.9", 1),
            (".5", 0),
        ],
        *[
            ("inf", 0),
            ("99999999999999999999", 2**64 - 1),
            ("-99999999999999999999", 2**64 - 1),
            ("0x1p4", 1),
        ],
        *[("18446744073709551615", 2**64 - 1), ("0" * 9000 + "7", 7), ("9" * 9000, 2**64 - 1), ("00", 0)],
    ],
)
def test_strtoull(text: str, value: int) -> None:
    assert strtoull(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("010", 10.0), ("0x10", 16.0), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0), ("1e400", float("inf"))],
        *[("-INF", float("-inf")), ("0x1p4", 16.0), ("0x.8", 0.5), ("-0x1p9999", float("-inf"))],
    ],
)
def test_strtod(text: str, value: float) -> None:
    assert strtod(text) == value


def test_nan_is_a_number() -> None:
    for text in ("nan", "-NaN", "nan(12)"):
        assert is_number(text)
        assert strtod(text) != strtod(text)


@pytest.mark.parametrize("text", ["", "0x", "0b11", "1_0", "1,5", "\uff11", "+", "1e", "5\0", "nan(", "true"])
def test_no_number(text: str) -> None:
    assert not is_number(text)


@given(st.integers(-(2**70), 2**70))
def test_strtoull_of_decimals(number: int) -> None:
    expected = 2**64 - 1 if abs(number) >= 2**64 else number % 2**64
    assert strtoull(str(number)) == expected


@given(st.floats(allow_nan=False))
def test_strtod_of_floats(number: float) -> None:
    assert strtod(repr(number)) == number
    assert strtod(number.hex()) == number
