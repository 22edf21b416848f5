"""Whatever is in a file, the checker says what is wrong: it never ends with a traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.submission import page, shown
from loadgen.submission.check import check
from loadgen.submission.table import csv, lines

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@contextmanager
def linked(tree: Path) -> Iterator[Path]:
    """A copy by links, whose files are replaced, never written into."""
    with tempfile.TemporaryDirectory(dir=tree.parent) as place:
        yield Path(shutil.copytree(tree, Path(place) / "tree", copy_function=os.link))


def replace(file: Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)


def everything(tree: Path) -> None:
    """All that is shown of a check, and no exception."""
    checked = check(tree)
    assert shown.text(checked).encode()
    assert shown.text(checked, as_official=True).encode()
    json.loads(shown.as_json(checked))
    json.loads(shown.sarif(checked))
    assert page.check_page(checked).encode()
    assert csv(lines(checked)).encode()


def files(tree: Path) -> list[Path]:
    return sorted(file.relative_to(tree) for file in tree.rglob("*") if file.is_file())


@pytest.mark.parametrize("name", ["small", "llama", "powered"])
@settings(max_examples=25)
@given(data=st.data())
def test_a_file_cut_off_or_garbled_anywhere(name: str, request: pytest.FixtureRequest, data: st.DataObject) -> None:
    whole = request.getfixturevalue(name)
    with linked(whole) as tree:
        for _ in range(data.draw(st.integers(1, 3))):
            file = tree / data.draw(st.sampled_from(files(tree)))
            content = file.read_bytes()
            at = data.draw(st.integers(0, len(content)))
            garbage = data.draw(st.binary(max_size=12))
            after = data.draw(st.sampled_from([b"", content[at + len(garbage) :]]))
            replace(file, content[:at] + garbage + after)
        everything(tree)


@pytest.mark.parametrize("name", ["small", "edge", "powered"])
@settings(max_examples=25)
@given(data=st.data())
def test_any_value_in_the_place_of_another(name: str, request: pytest.FixtureRequest, data: st.DataObject) -> None:
    whole = request.getfixturevalue(name)
    with linked(whole) as tree:
        described = [
            file for file in files(tree) if file.suffix in (".json", ".txt") and b'"' in (tree / file).read_bytes()
        ]
        file = tree / data.draw(st.sampled_from(described))
        text, value = file.read_text(), json.dumps(data.draw(VALUES))
        values = list(re.finditer(r'(?<=: )(?:"[^"]*"|[\d.]+|true|false|null|\[[^\]]*\])', text))
        if values:
            chosen = data.draw(st.sampled_from(values))
            replace(file, (text[: chosen.start()] + value + text[chosen.end() :]).encode())
        everything(tree)


@settings(max_examples=20)
@given(data=st.data())
def test_files_and_folders_that_come_and_go(small: Path, data: st.DataObject) -> None:
    with linked(small) as tree:
        chosen = tree / data.draw(st.sampled_from(sorted(place.relative_to(tree) for place in tree.rglob("*"))))
        kind = data.draw(st.sampled_from(["gone", "a folder", "a file", "a link to itself", "a new name"]))
        shutil.rmtree(chosen) if chosen.is_dir() else chosen.unlink()
        if kind == "a folder":
            chosen.mkdir()
        elif kind == "a file":
            chosen.write_bytes(data.draw(st.binary(max_size=20)))
        elif kind == "a link to itself":
            chosen.symlink_to(chosen)
        elif kind == "a new name":
            shutil.copytree(small / "closed", tree / "open", copy_function=os.link, dirs_exist_ok=True)
        if any((tree / division).is_dir() for division in ("closed", "open", "network")):
            everything(tree)


@pytest.mark.parametrize("value", ["{}", "true"])
def test_a_value_of_any_kind_in_every_place_of_every_log(value: str, llama: Path) -> None:
    """A key at a time, in all logs at once: the first fault must not hide the others."""
    logs = [file for file in files(llama) if file.name == "mlperf_log_detail.txt"]
    keys = {key for log in logs for key in re.findall(r'^:::MLLOG {"key": "([^"]+)', (llama / log).read_text(), re.M)}
    read = sorted(key for key in keys if not key.startswith(("requested_", "loadgen_", "result_time", "result_first")))
    with linked(llama) as tree:
        for key in ("result_first_token_99.00_percentile_latency_ns", "requested_use_token_latencies", *read):
            pattern = re.compile(rf'("key": "{re.escape(key)}", "value": ).*?(, "time_ms")')
            for log in logs:
                replace(tree / log, pattern.sub(rf"\g<1>{value}\2", (llama / log).read_text()).encode())
            check(tree)


@pytest.mark.parametrize("value", ["[" * 100_000, '{"a":' * 50_000, "1" * 5000, '"\\ud800"'])
def test_json_that_no_reader_likes(value: str, small: Path) -> None:
    with linked(small) as tree:
        for name in (
            "closed/Org/systems/box.json",
            "closed/Org/measurements/box/resnet/Offline/box_abacus_Offline.json",
        ):
            replace(tree / name, value.encode())
            everything(tree)
        detail = tree / "closed/Org/results/box/resnet/Offline/performance/run_1/mlperf_log_detail.txt"
        entry: dict[str, Any] = {"key": "sut_name", "metadata": {"is_error": False}}
        line = f':::MLLOG {json.dumps(entry)[:-1]}, "value": {value}}}\n'
        replace(detail, detail.read_bytes() + line.encode())
        everything(tree)
