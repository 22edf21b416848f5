"""The captions of COCO 2014 that the benchmark draws: a table of tab-separated values, sample i in row i."""

from __future__ import annotations

from pathlib import Path

from loadgen.contracts import InputError

COLUMNS = ("id", "image_id", "caption", "height", "width", "file_name", "coco_url")
"""The official file's; only the caption is read."""
_ADVICE = "put the official captions_source.tsv there under this name"


def read_captions(path: Path, count: int) -> list[str]:
    """One of each row. Raises InputError that names the first wrong line, or a number of rows other than `count`.

    A value may stand in double quotes, as pandas writes one that holds a quote; it may hold no tab.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file: {_ADVICE}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error}): {_ADVICE}") from error
    names = lines[0].split("\t") if lines else []
    if "caption" not in names:
        raise InputError(f"{path}:1: no column 'caption' among {names}: {_ADVICE}")
    at = names.index("caption")
    rows = [_row(line, len(names), f"{path}:{number}")[at] for number, line in enumerate(lines[1:], 2)]
    if len(rows) != count:
        raise InputError(f"{path}: {len(rows):,} captions, {count:,} expected: {_ADVICE}")
    empty = next((number for number, caption in enumerate(rows, 2) if not caption.strip()), None)
    if empty:
        raise InputError(f"{path}:{empty}: the caption is empty: correct the line")
    return rows


def _row(line: str, columns: int, place: str) -> list[str]:
    values = line.split("\t")
    if len(values) != columns:
        raise InputError(
            f"{place}: {len(values)} values, {columns} columns: correct the line; a caption may hold no tab"
        )
    return [_unquoted(value) for value in values]


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1].replace('""', '"')
    return value
