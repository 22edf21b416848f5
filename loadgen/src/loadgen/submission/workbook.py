"""The tables as an Excel workbook, laid out as the official final report: a sheet a category and division."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from loadgen.errors import InputError
from loadgen.submission.table import Line

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
_LEFT = (
    "ID",
    "Unique ID",
    "Submitter",
    "Availability",
    "System",
    "Nodes",
    "Processor",
    "p#",
    "Accelerator",
    "a#",
    "Software",
    "Notes",
)
_WHEN = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip archive can name
_MOMENT = re.compile(rb"(<dcterms:(created|modified)[^>]*>)[^<]*")


def workbook(lines: Sequence[Line], models: Sequence[str], version: str) -> bytes:
    """The workbook's bytes, the same for the same lines. models: in the order of the columns.

    Raises InputError if the package that writes it is not installed.
    """
    try:
        import openpyxl
        from openpyxl.styles import Font
    except ModuleNotFoundError as error:
        raise InputError("a workbook needs the package openpyxl: pip install './loadgen[submission]'") from error
    book: Any = openpyxl.Workbook()
    book.remove(book.active)
    for title, of in _sheets(lines):
        sheet = book.create_sheet(title)
        for row in _rows(of, models, version):
            sheet.append(row)
        for row in sheet.iter_rows(min_row=1, max_row=3):
            for cell in row:
                cell.font = Font(bold=True)
        for row in sheet.iter_rows(min_row=4, min_col=len(_LEFT) + 3):
            for cell in row:
                cell.number_format = "#,##0.00"
        sheet.column_dimensions["B"].hidden = True
        sheet.freeze_panes = "D4"
    if not book.sheetnames:
        book.create_sheet("no results")
    made = io.BytesIO()
    book.save(made)
    return _timeless(made.getvalue())


def _timeless(data: bytes) -> bytes:
    """The archive without the time at which it was written."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = _MOMENT.sub(rb"\g<1>1980-01-01T00:00:00Z", old.read(name))
            new.writestr(zipfile.ZipInfo(name, _WHEN), content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def _sheets(lines: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    for division in ("closed", "open", "network"):
        for suite in ("datacenter", "edge"):
            of = [one for one in lines if one.row.place.division == division and suite in str(one.cells["SystemType"])]
            plain, powered = [one for one in of if not one.is_power], [one for one in of if one.cells["has_power"]]
            if plain:
                yield f"{suite} - {division}", plain
            if powered:
                yield f"{suite} - {division} - power", powered


def _rows(lines: Sequence[Line], models: Sequence[str], version: str) -> Iterator[list[Any]]:
    """Three rows of headings (model, scenario, unit), then one a system, and in open one a model of its own."""
    columns = sorted({_column(line) for line in lines}, key=lambda one: _order(one, models))
    blank = [""] * (len(_LEFT) + 2)
    for at in range(2):
        yield [*blank, *(column[at] for column in columns)]
    yield [*_LEFT, "Details", "Code", *(column[2] for column in columns)]
    systems: dict[tuple[str, ...], dict[tuple[str, str, str], Line]] = {}
    for line in lines:
        systems.setdefault(_system(line), {})[_column(line)] = line
    for _, of in sorted(systems.items()):
        first = next(iter(of.values()))
        figures = [of[column].cells["Result"] if column in of else "" for column in columns]
        yield [*_left(first, version), *figures]


def _column(line: Line) -> tuple[str, str, str]:
    return line.cells["MlperfModel"], line.cells["Scenario"], line.cells["Units"] if line.is_power else line.unit


def _order(column: tuple[str, str, str], models: Sequence[str]) -> tuple[int, int, str]:
    model, scenario, unit = column
    return models.index(model), SCENARIOS.index(scenario), unit


def _system(line: Line) -> tuple[str, ...]:
    place = line.row.place
    own = (place.model,) if place.division == "open" else ()
    return str(line.cells["Availability"]), place.submitter, place.system, *own


def identifier(line: Line, version: str) -> tuple[str, str]:
    """(short, long) names of a table's row, which stay when other rows come or go."""
    _, *name = _system(line)
    long = "/".join([str(line.cells["SystemType"]), line.row.place.division, *name])
    return f"{version.removeprefix('v')}-{hashlib.sha256(long.encode()).hexdigest()[:8]}", long


def _left(line: Line, version: str) -> list[Any]:
    cells, place = line.cells, line.row.place
    details, code = place.system_path, place.code
    return [
        *identifier(line, version),
        cells["Organization"],
        cells["Availability"],
        cells["SystemName"],
        _number(cells["number_of_nodes"]),
        cells["host_processor_model_name"],
        _number(cells["host_processors_per_node"]),
        "" if cells["accelerator_model_name"] in ("N/A", "-") else cells["accelerator_model_name"],
        "" if cells["accelerators_per_node"] in ("0", 0) else _number(cells["accelerators_per_node"]),
        cells["framework"],
        cells["notes"],
        f'=HYPERLINK("{details}","details")',
        f'=HYPERLINK("{code}","code")',
    ]


def _number(value: Any) -> Any:
    return int(value) if str(value).isdecimal() else value
