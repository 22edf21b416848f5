"""The table of results: the official columns, line for line as the official checker of v4.0 writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadgen.submission.check import Checked, Row

COLUMNS = (
    "Organization,Availability,Division,SystemType,SystemName,Platform,Model,MlperfModel,Scenario,Result,Accuracy,"
    "number_of_nodes,host_processor_model_name,host_processors_per_node,host_processor_core_count,"
    "accelerator_model_name,accelerators_per_node,Location,framework,operating_system,notes,compliance,errors,version,"
    "inferred,has_power,Units"
).split(",")
_QUOTED = {"SystemType", "SystemName", "host_processor_model_name", "accelerator_model_name", "accelerators_per_node"}
_QUOTED |= {"framework", "operating_system", "notes"}
_UNITS = {"SingleStream": "Latency (ms)", "MultiStream": "Latency (ms)", "Offline": "Samples/s", "Server": "Queries/s"}
_POWER_UNITS = {"SingleStream": "millijoules", "MultiStream": "millijoules", "Offline": "Watts", "Server": "Watts"}


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    cells: Mapping[str, Any]
    """By the official columns."""
    row: Row
    unit: str
    """What the figure really is: tokens are no samples."""
    is_power: bool = False

    @property
    def id(self) -> str:
        """Stable: of what the result is, not of where it stands in a table."""
        place = self.row.place
        name = "/".join([place.division, place.submitter, place.system, place.model, place.scenario])
        return hashlib.sha256(name.encode()).hexdigest()[:8]


def lines(checked: Checked) -> list[Line]:
    """Every result that passes, and beneath one with power a second line; in the order of their paths."""
    taken = [row for row in checked.rows if row.measured.value is not None and not checked.refuses(row.place)]
    return [line for row in taken for line in _lines(checked, row)]


def _lines(checked: Checked, row: Row) -> Iterator[Line]:
    keys = checked.requirements.benchmarks[row.benchmark].rules.result_keys
    by_tokens = any("tokens" in key for scenario, key in keys.items() if scenario.name == row.place.scenario)
    unit = "Tokens/s" if by_tokens else _UNITS[row.place.scenario]
    yield Line(_cells(checked, row, row.measured.value, _UNITS[row.place.scenario]), row, unit)
    if row.power is not None:
        unit = _POWER_UNITS[row.place.scenario]
        yield Line(_cells(checked, row, row.power.metric, unit), row, unit, is_power=True)


def _cells(checked: Checked, row: Row, value: Any, unit: str) -> dict[str, Any]:
    system, place = row.system, row.place
    notes = ". ".join(str(system[key]) for key in ("hw_notes", "sw_notes") if system.get(key))
    return {
        "Organization": place.submitter,
        "Availability": str(system.get("status")).lower(),
        "Division": place.division,
        "SystemType": system.get("system_type"),
        "SystemName": system.get("system_name"),
        "Platform": place.system,
        "Model": place.model,
        "MlperfModel": row.benchmark,
        "Scenario": place.scenario,
        "Result": value,
        "Accuracy": row.accuracy,
        **{key: system.get(key) for key in COLUMNS[11:17]},
        "Location": place.path,
        "framework": system.get("framework", ""),
        "operating_system": system.get("operating_system", ""),
        "notes": notes,
        "compliance": 1,
        "errors": 0,
        "version": checked.requirements.round.name,
        "inferred": int(row.measured.inferred),
        "has_power": row.power is not None,
        "Units": unit,
    }


def csv(of: Sequence[Line]) -> str:
    """The official file: texts between quotation marks are those that it puts there."""
    text = [",".join(COLUMNS)]
    text += [",".join(_cell(name, line.cells[name]) for name in COLUMNS) for line in of]
    return "\n".join(text) + "\n"


def _cell(name: str, value: Any) -> str:
    """Quotation marks within a text are doubled, and one that would break the line is quoted: not so officially."""
    text = str(float(value)) if name == "Result" else str(value)
    if name in _QUOTED or any(mark in text for mark in ',"\n'):
        return '"' + text.replace('"', '""').replace("\n", " ") + '"'
    return text
