"""The report of a run: `report.html`, one file that needs nothing else, and `results.csv`, a row a test."""

from __future__ import annotations

import base64
import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from loadgen.contracts import CONTACT_SHEET, InputError
from loadgen.harness.files import saving, whole_file
from loadgen.harness.machine import telemetry
from loadgen.harness.peak import Tried
from loadgen.harness.report import charts, columns, provenance, record, system_charts
from loadgen.harness.report.drawing import Chart
from loadgen.harness.report.record import SavedRun, SavedTest
from loadgen.harness.scoring import text
from loadgen.logs import LogError, metrics_of, read_detail
from loadgen.results import PERCENTILES

_LATENCIES = {  # heading -> keys of the detail log: of min, max and mean; of a percentile
    "latency": ("result_{}_latency_ns", "result_{}_percentile_latency_ns"),
    "query latency": ("result_{}_query_latency_ns", "result_{}_percentile_per_query_latency_ns"),
    "first token": ("result_first_token_{}_latency_ns", "result_first_token_{}_percentile_latency_ns"),
    "per output token": ("result_time_to_output_token_{}", "result_time_per_output_token_{}_percentile_ns"),
    "between tokens": ("between_tokens_{}_ns", "between_tokens_{}_percentile_ns"),  # measured by the system
}
_PREFIXES = {
    "SingleStream": "single_stream_",
    "MultiStream": "multi_stream_",
    "Server": "server_target_",
    "Offline": "offline_",
}
_JUDGED = {
    "SingleStream": "single_stream_target_latency_percentile",
    "MultiStream": "multi_stream_target_latency_percentile",
    "Server": "server_target_latency_percentile",
}
_GPU_CELLS = (  # measure, which of it, its unit in that of the table
    ("use_percent", "mean", 1),
    ("use_percent", "max", 1),
    ("memory_mib", "max", 1024),
    ("power_w", "mean", 1),
    ("power_w", "max", 1),
)
_CONDITIONS = {  # key of the detail log -> what it means, with values of the same log
    "result_perf_constraints_met": "latency limit",
    "result_min_duration_met": "minimum duration, {effective_min_duration_ms} ms",
    "result_min_queries_met": "minimum number of queries, {effective_min_query_count}",
    "early_stopping_met": "early stopping: enough queries to be 99 % sure of the percentile",
}


def write_report(folder: Path) -> Path:
    """Write `report.html` and `results.csv` of the run in folder; returns the page's path.

    Raises InputError if the folder has no results. Columns or logs that are missing leave out only
    what is drawn from them, and the page says so.
    """
    run = record.read(folder)
    table, page = run.folder / "results.csv", run.folder / "report.html"
    with saving(table), whole_file(table) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(_csv_rows(run))
    views = [_view(run, number) for number in range(len(run.tests))]
    text = render("report.html", run=run, views=views)
    with saving(page), whole_file(page) as part:
        part.write_text(text, "utf-8")
    return page


def render(template: str, **values: Any) -> str:
    """A page from its template. Everything is escaped, but what is `Markup`."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters.update(figure=figure, seconds=lambda ns: f"{ns / 1e9:,.1f} s", moment=_moment, breakable=_breakable)
    return pages.get_template(template).render(**values)


def picture(chart: Chart) -> tuple[Chart, Markup]:
    """A chart and its SVG, which is safe: the only text in it is our own labels and numbers."""
    return chart, Markup(chart.svg)


def write_page(file: Path, text: str) -> None:
    """Where `--html` says. Raises InputError if it cannot be written."""
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"--html {file} cannot be written ({error.strerror}): choose another file") from error


def figure(value: object) -> str:
    """A number as a person reads it: whole with separators, else with 5 digits that count."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.5g}"


def measured(test: SavedTest) -> str:
    """The result of a test in a few words."""
    if test.accuracy:
        return text(test.accuracy)
    head = test.headline
    if not head:
        return "nothing measured"
    return f"{figure(head['value'])} {head['unit']}{record.against_limits(test.scenario, test.metrics, test.settings)}"


def _breakable(name: str) -> Markup:
    """A long name that may fold after each underscore, slash and dot, so that its table fits a phone."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/.])", name))


def _moment(finished: str) -> str:
    return finished.replace("T", " ").replace("Z", " UTC")


def _view(run: SavedRun, number: int) -> dict[str, Any]:
    """What the template shows of one test."""
    test = run.tests[number]
    headings, rows = latency_table(test.metrics)
    pictures, missing = _charts(test, number)
    settings = [
        (name, _setting(name, value), test.origins.get(name, "")) for name, value in sorted(test.settings.items())
    ]
    changed = [s for s in settings if s[2] and not s[0].startswith(_of_others(test.scenario))]
    return {
        "test": test,
        "measured": measured(test),
        "conditions": _conditions(test),
        "headings": headings,
        "latencies": rows,
        "charts": pictures,
        "sheet": _sheet(test),
        "gpus": [_gpu(row) for row in test.telemetry],
        "gpu_charts": _gpu_charts(test, number),
        "missing": missing,
        "logs": list(provenance.logs(run.folder, test.folder)),
        "settings": changed,
        "other_settings": [s for s in settings if s not in changed],
        "settings_as": next((n for n in range(number) if _same_settings(run.tests[n], test)), None),
    }


def _setting(name: str, value: object) -> str:
    """The value in the unit of its name, and in one that is easier to read: `130,000,000 (130 ms)`."""
    if name.endswith("_seed"):
        return str(value)  # it is no amount
    for endings, per, unit in ((("_ns", "_ttft_latency", "_tpot_latency"), 1e6, "ms"), ("_ms", 1e3, "s")):
        if name.endswith(endings) and isinstance(value, (int, float)) and value:
            return f"{figure(value)} ({value / per:,.6g} {unit})"
    return figure(value)


def _of_others(scenario: str) -> tuple[str, ...]:
    """How the names of settings begin that matter in other scenarios only, or in the audit TEST05 only."""
    return ("test05_", *(name for own, name in _PREFIXES.items() if own != scenario))


def _same_settings(one: SavedTest, other: SavedTest) -> bool:
    if not one.settings or one.origins != other.origins:
        return False
    return {**one.settings, "mode": ""} == {**other.settings, "mode": ""}


def latency_table(metrics: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """(headings, rows of (name, milliseconds)) of what the log has latencies of."""
    kinds = {name: keys for name, keys in _LATENCIES.items() if keys[0].format("mean") in metrics}
    names = [(label, key, 0) for label, key in (("lowest", "min"), ("mean", "mean"))]
    names += [(f"p{p * 100:g}", f"{p * 100:.2f}", 1) for p in PERCENTILES]
    names.append(("highest", "max", 0))
    rows = [
        (label, [_milliseconds(metrics.get(keys[which].format(key))) for keys in kinds.values()])
        for label, key, which in names
        if kinds
    ]
    return list(kinds), rows


def _milliseconds(ns: Any) -> str:
    return "-" if ns is None else f"{ns / 1e6:,.3f}"


def _conditions(test: SavedTest) -> list[tuple[str, bool]]:
    """(condition, is it met) as the detail log has them; none where it is missing or cut off."""
    try:
        said = metrics_of(read_detail(test.folder / "mlperf_log_detail.txt"))
    except LogError:
        return []
    known = defaultdict(lambda: "?", {name: figure(value) for name, value in said.items()})
    return [(meaning.format_map(known), bool(said[key])) for key, meaning in _CONDITIONS.items() if key in said]


def _charts(test: SavedTest, number: int) -> tuple[list[tuple[Chart, Markup]], str]:
    """(charts and their safe SVG, why there are none)."""
    if test.kind != "performance":
        return [], ""
    try:
        judged = judged_of(test)
        drawn = charts.draw(columns.read(test.folder), f"c{number}", judged)
        drawn += system_charts.draw_flow(columns.read_figures(test.folder), f"f{number}")
        if test.rates_tried:
            drawn.append(charts.draw_rates([Tried(**one) for one in test.rates_tried], f"p{number}", judged))
    except InputError as error:
        return [], f"No charts: {error}."
    return [picture(chart) for chart in drawn], "" if drawn else "No charts: no query was answered."


def _sheet(test: SavedTest) -> str:
    """The address of the picture of some answers, which is the picture itself; empty: the benchmark has left none."""
    file = test.folder / CONTACT_SHEET
    if test.kind != "accuracy" or not file.is_file():
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"


def judged_of(test: SavedTest) -> charts.Judged:
    """What the rules judge of its latencies, as far as its settings were kept."""
    said = test.settings
    share = float(said.get(_JUDGED.get(test.scenario, ""), 0.0))
    if test.scenario != "Server" or not said:
        return charts.Judged(share)
    if said.get("use_token_latencies"):
        return charts.Judged(share, 0, int(said["server_ttft_latency"]), int(said["server_tpot_latency"]))
    return charts.Judged(share, int(said["server_target_latency_ns"]))


def _gpu(row: Mapping[str, Any]) -> list[str]:
    """The GPU's number and what `_GPU_CELLS` lists: the cells of a row."""
    values = (row[name][kind] / scale if name in row else None for name, kind, scale in _GPU_CELLS)
    return [str(row["gpu"]), *("-" if value is None else f"{value:,.1f}" for value in values)]


def _gpu_charts(test: SavedTest, number: int) -> list[tuple[Chart, Markup]]:
    """As `_charts`; none where nothing was sampled, or the file of it is lost or damaged."""
    try:
        samples = telemetry.read(test.folder) if test.telemetry else None
    except InputError:
        return []
    drawn = system_charts.draw_gpus(samples, f"g{number}") if samples else []
    return [picture(chart) for chart in drawn]


def _csv_rows(run: SavedRun) -> Iterator[Sequence[object]]:
    percentiles = {f"p{p * 100:g}_latency_ns": f"result_{p * 100:.2f}_percentile_latency_ns" for p in PERCENTILES}
    scores = sorted({name for test in run.tests if test.accuracy for name in test.accuracy[0].values})
    yield (
        *("benchmark", "profile", "benchmark_result", "backend", "scenario", "mode", "verdict", "metric", "value"),
        *("unit", *scores, "queries", "samples", "duration_s", *percentiles, "reasons", "finished"),
    )
    for test in run.tests:
        head = test.headline or {"name": "", "value": "", "unit": ""}
        values = test.accuracy[0].values if test.accuracy else {}
        yield (
            *(run.benchmark, run.profile, not run.shortfalls, run.options.get("backend", "")),
            *(test.scenario, test.kind, test.verdict, head["name"], head["value"], head["unit"]),
            *(values.get(name, "") for name in scores),
            *(test.query_count, test.sample_count, test.duration_ns / 1e9),
            *(test.metrics.get(key, "") for key in percentiles.values()),
            *("; ".join(test.reasons), test.finished),
        )
