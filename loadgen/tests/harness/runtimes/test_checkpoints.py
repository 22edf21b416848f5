"""Configs and shapes that do not fit are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import check_shapes, read_object, size, without_surplus


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file. Put the model's c.json there"),
        (b"{", "not JSON .*Put the model's c.json there"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "holds no JSON object"),
    ],
)
def test_what_is_no_object_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_object(path)
    assert str(path) in str(caught.value)


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"a": 3}')
    assert size(read_object(tmp_path / "c.json"), "a", tmp_path) == 3


@pytest.mark.parametrize("value", [None, 0, -1, 1.0, "1", True])
def test_a_size_is_a_positive_whole_number(value: object) -> None:
    with pytest.raises(InputError, match=f"c.json: 'a' is {value!r}, expected a positive whole number"):
        size({"a": value}, "a", Path("c.json"))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a": (2, 3)}, r"w.bin: tensor 'b' \[4\] is missing: use the weights and c.json of one model"),
        ({"a": (3, 2), "b": (4,)}, r"tensor 'a' has shape \[3, 2\], expected \[2, 3\]"),
        ({"a": (2, 3), "b": (4,), "c": (1,)}, "tensor 'c' is unknown to this model"),
    ],
)
def test_shapes_that_do_not_fit_are_named(found: dict[str, tuple[int, ...]], message: str) -> None:
    expected = {"a": (2, 3), "b": (4,)}
    check_shapes(expected, expected, "w.bin", "c.json")
    with pytest.raises(InputError, match=message):
        check_shapes(found, expected, "w.bin", "c.json")


def test_surplus_tensors_are_named_and_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert without_surplus({"a": 1, "b": 2}, {"a", "b", "c"}, "w.bin") == {"a": 1, "b": 2}
    assert capsys.readouterr().err == ""
    many = {f"x{number}": 0 for number in range(7)}
    assert without_surplus({"a": 1, **many}, {"a"}, "w.bin") == {"a": 1}
    expected = "warning: w.bin: unknown to this model and passed over: x0, x1, x2, x3, x4 and 2 more\n"
    assert capsys.readouterr().err == expected
