"""Two runs of one benchmark side by side: figures, verdicts, and whatever else differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadgen.contracts import InputError
from loadgen.harness.report import columns, record, screen
from loadgen.harness.report.charts import draw_pair
from loadgen.harness.report.drawing import Chart
from loadgen.harness.report.page import figure, judged_of, picture, render, write_page
from loadgen.harness.report.record import SavedRun, SavedTest

EXIT_OK, EXIT_WORSE = 0, 1
_LOWER_IS_BETTER = ("ms", "s")  # units of headlines; every other one is a rate
_ALSO = {
    "latency p50": "result_50.00_percentile_latency_ns",
    "latency p99": "result_99.00_percentile_latency_ns",
    "first token p99": "result_first_token_99.00_percentile_latency_ns",
    "per output token p99": "result_time_per_output_token_99.00_percentile_ns",
    "between tokens p99": "between_tokens_99.00_percentile_ns",
}


@dataclass(frozen=True)
class Metric:
    """One figure of one test in both runs; None where a run has none."""

    test: str
    name: str
    unit: str
    a: float | None
    b: float | None
    lower_is_better: bool
    judged: bool
    """Does it count for `--fail-above`? Percentiles beside the headline are only shown."""
    valid: bool
    """Is the test valid in both runs? The figures of an INVALID test are shown, but not compared."""
    spread_percent: float = 0.0
    """The larger spread of the two, where the test was repeated: a smaller difference says nothing."""

    @property
    def gain_percent(self) -> float | None:
        """By how much B is better, negative if it is worse; None if that can't be said."""
        if self.a is None or self.b is None or not self.valid or not self.a > 0:
            return None
        change = 100 * (self.b - self.a) / self.a
        return -change if self.lower_is_better else change

    @property
    def change(self) -> str:
        gain = self.gain_percent
        if gain is None:
            return "-"
        if self.direction and abs(gain) <= self.spread_percent:
            return f"{abs(gain):.1f} % {self.direction}, within the spread of {self.spread_percent:.1f} %"
        return f"{abs(gain):.1f} % {self.direction}" if self.direction else "same"

    def is_worse_by(self, percent: float) -> bool:
        """By more than that, and by more than runs of the same system differ."""
        gain = self.gain_percent
        return self.judged and gain is not None and -gain > max(percent, self.spread_percent)

    @property
    def direction(self) -> str:
        """better, worse or, below a twentieth of a percent, nothing."""
        gain = self.gain_percent or 0.0
        return "" if abs(gain) < 0.05 else "better" if gain > 0 else "worse"


@dataclass(frozen=True)
class Difference:
    """A setting, an option or a fact that differs. `of` says of what."""

    of: str
    name: str
    a: str
    b: str


@dataclass(frozen=True)
class Comparison:
    """All that two runs have and differ in."""

    a: SavedRun
    b: SavedRun
    verdicts: tuple[Difference, ...]
    """Of every test, also where it is the same."""
    metrics: tuple[Metric, ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]

    def failures(self, percent: float) -> list[str]:
        """Why B is not as good as A: a judged figure worse by more than percent, or a VALID test lost."""
        lost = [f"{v.of} was VALID in A and is {v.b} in B" for v in self.verdicts if v.a == "VALID" != v.b]
        worse = [m for m in self.metrics if m.is_worse_by(percent)]
        return lost + [f"{m.test} {m.name} is {m.change}, more than {percent:g} %" for m in worse]


def execute(a: Path, b: Path, fail_above: float | None = None, html: Path | None = None) -> int:
    """The `compare` command. Returns its exit code. Raises InputError for folders that can't be compared."""
    found = compare(record.read(a), record.read(b))
    out = screen.console(quiet=False)
    show(found, out)
    failures = [] if fail_above is None else found.failures(fail_above)
    for failure in failures:
        out.print(failure, style="red", markup=False)
    if html is not None:
        write_page(html, render("compare.html", c=found, failures=failures, charts=overlaid(found)))
        out.print(f"comparison: {html}", markup=False, soft_wrap=True)
    return EXIT_WORSE if failures else EXIT_OK


def overlaid(found: Comparison) -> dict[str, tuple[Chart, Markup]]:
    """Test -> the latencies of both runs over each other, and their safe SVG; of tests whose columns both have."""
    drawn = {}
    for number, verdict in enumerate(found.verdicts):
        pair = [_find(run, verdict.of) for run in (found.a, found.b)]
        if all(test and test.kind == "performance" for test in pair):
            chart = _over_each_other([test for test in pair if test], f"c{number}")
            if chart:
                drawn[verdict.of] = picture(chart)
    return drawn


def _over_each_other(tests: list[SavedTest], prefix: str) -> Chart | None:
    try:
        a, b = (columns.read(test.folder).latencies_ns for test in tests)
    except InputError:
        return None
    return draw_pair(a, b, prefix, judged_of(tests[0]).limit_ns) if len(a) and len(b) else None


def compare(a: SavedRun, b: SavedRun) -> Comparison:
    """Match the tests by scenario and mode. Raises InputError for runs of two benchmarks."""
    if a.benchmark != b.benchmark:
        raise InputError(
            f"{a.folder} is a run of {a.benchmark}, {b.folder} of {b.benchmark}: compare runs of one benchmark"
        )
    names = dict.fromkeys(_name(test) for run in (a, b) for test in run.tests)
    pairs = {name: (_find(a, name), _find(b, name)) for name in names}
    return Comparison(
        a=a,
        b=b,
        verdicts=tuple(Difference(name, "", _verdict(x), _verdict(y)) for name, (x, y) in pairs.items()),
        metrics=tuple(metric for name, (x, y) in pairs.items() for metric in _metrics(name, x, y)),
        differences=tuple(_differences(a, b, pairs)),
        warnings=tuple(_warnings(a, b)),
    )


def _name(test: SavedTest) -> str:
    return f"{test.scenario} {test.kind}"


def _find(run: SavedRun, name: str) -> SavedTest | None:
    return next((test for test in run.tests if _name(test) == name), None)


def _verdict(test: SavedTest | None) -> str:
    return test.verdict if test else "not run"


def _metrics(name: str, a: SavedTest | None, b: SavedTest | None) -> Iterator[Metric]:
    """The headline, its context, and the scores; a score without a target is only shown.

    The rate of Server is what its schedule asked for. Where both runs were asked for the same, the rules judge its
    latency, and so is it here.
    """
    some, valid = a or b, bool(a and b and a.valid and b.valid)
    of_server = _judged_latencies(a, b)
    spread = max((test.spread_percent for test in (a, b) if test), default=0.0)
    head = (a and a.headline) or (b and b.headline)
    if head:
        lower = head["unit"] in _LOWER_IS_BETTER
        x, y = (test.headline["value"] if test and test.headline else None for test in (a, b))
        yield Metric(name, head["name"], head["unit"], x, y, lower, not of_server, valid, 0.0 if of_server else spread)
    if some and some.scenario != "Offline":  # whose latencies say what its throughput says
        for key, label in {**{key: label for label, key in _ALSO.items()}, **of_server}.items():
            x, y = (test.metrics.get(key) if test else None for test in (a, b))
            if x is not None or y is not None:
                judged, noise = key in of_server, spread if key in of_server else 0.0
                yield Metric(name, label, "ms", _ms(x), _ms(y), True, judged, valid, noise)
    yield from _scores(name, a, b, valid)


def _judged_latencies(a: SavedTest | None, b: SavedTest | None) -> Mapping[str, str]:
    """Key and name of what the rules judge in two Server tests at one rate; nothing for other tests."""
    if not (a and b and a.kind == b.kind == "performance" and a.settings and b.settings):
        return {}
    if a.settings["server_target_qps"] != b.settings["server_target_qps"]:
        return {}
    return {key: name for key, name, _ in record.judged_latencies(a.scenario, a.settings)}


def _scores(name: str, a: SavedTest | None, b: SavedTest | None, valid: bool) -> Iterator[Metric]:
    """Of those that have one limit it says which way is better; one with none, or that is to stay between two, is only
    shown: its verdict says whether it passed."""
    scores = [test.accuracy[0] if test and test.accuracy else None for test in (a, b)]
    for metric in sorted({metric for score in scores if score for metric in score.values}):
        limits = next((score.limits[metric] for score in scores if score and metric in score.limits), (None, None))
        x, y = (score.values.get(metric) if score else None for score in scores)
        judged = (limits[0] is None) != (limits[1] is None)
        yield Metric(name, metric, "", x, y, lower_is_better=limits[0] is None and judged, judged=judged, valid=valid)


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e6


def _differences(
    a: SavedRun, b: SavedRun, pairs: Mapping[str, tuple[SavedTest | None, SavedTest | None]]
) -> Iterator[Difference]:
    yield from _differing("run", {"profile": a.profile, **a.options}, {"profile": b.profile, **b.options})
    for name, (x, y) in pairs.items():
        if x and y and x.settings and y.settings:
            yield from _differing(name, x.settings, y.settings)
    yield from _differing("file", a.files, b.files)
    yield from _differing("machine", a.machine, b.machine)


def _differing(of: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys([*a, *b]):
        x, y = a.get(name), b.get(name)
        if x != y:
            yield Difference(of, name, *("-" if value is None else figure(value) for value in (x, y)))


def _warnings(a: SavedRun, b: SavedRun) -> Iterator[str]:
    if a.profile != b.profile:
        yield f"A is of profile {a.profile}, B of {b.profile}: different models or data, so the figures don't compare."
    if a.shortfalls == b.shortfalls != ():
        yield f"Neither is a benchmark result: {'; '.join(a.shortfalls)}."
    for name, run in (("A", a), ("B", b)) if a.shortfalls != b.shortfalls else ():
        if run.shortfalls:
            yield f"{name} is not a benchmark result: {'; '.join(run.shortfalls)}."
    for name, run in (("A", a), ("B", b)):
        if any(not test.settings for test in run.tests):
            yield f"{name} has no record of its settings, so they are not compared."


def show(found: Comparison, out: Console) -> None:
    """Print the tables. Names in the files are text, never markup."""
    out.print(f"{found.a.title}\nA  {found.a.folder}\nB  {found.b.folder}", markup=False, soft_wrap=True)
    for warning in found.warnings:
        out.print(warning, style="yellow", markup=False)
    out.print()
    print_pairs = _print_table if out.width >= _TABLE else _print_list
    print_pairs([_of_tests(found), _what_differs(found)], out)


_TABLE = 60
"""Columns from which on a terminal gets tables; a narrower one gets lists."""


@dataclass(frozen=True)
class _Pair:
    """A line of the comparison; a heading has only a name."""

    name: str
    a: str = ""
    b: str = ""
    change: str = ""
    style: str = ""


def _of_tests(found: Comparison) -> list[_Pair]:
    """Names of tests, verdicts and figures; the first names the columns."""
    pairs = [_Pair("test", "A", "B", "B against A")]
    for verdict in found.verdicts:
        changed = "same" if verdict.a == verdict.b else "changed"
        pairs.append(_Pair(verdict.of))
        pairs.append(_Pair("verdict", verdict.a, verdict.b, changed, "" if changed == "same" else "yellow"))
        for m in found.metrics:
            if m.test == verdict.of:
                name = f"{m.name}{f', {m.unit}' if m.unit else ''}{'' if m.judged else ' (not judged)'}"
                colour = {"better": "green", "worse": "red"}.get(m.direction, "")
                pairs.append(_Pair(name, _value(m.a), _value(m.b), m.change, colour))
    return pairs


def _what_differs(found: Comparison) -> list[_Pair]:
    pairs = [_Pair("differs", "A", "B")]
    of = ""
    for d in found.differences:
        if d.of != of:
            of = d.of
            pairs.append(_Pair(of))
        pairs.append(_Pair(d.name, d.a, d.b))
    return pairs


def _print_table(groups: list[list[_Pair]], out: Console) -> None:
    for heads, *pairs in filter(lambda group: len(group) > 1, groups):
        table = Table(show_edge=False)
        table.add_column(heads.name, overflow="fold")
        for head in filter(None, (heads.a, heads.b, heads.change)):
            table.add_column(head, justify="right" if heads.change else "left", overflow="fold")
        for pair in pairs:
            indent = "  " if pair.a else ""
            cells = [Text(f"{indent}{pair.name}"), Text(pair.a), Text(pair.b), Text(pair.change, style=pair.style)]
            table.add_row(*cells[: len(table.columns)])
        out.print(table)
        out.print()


def _print_list(groups: list[list[_Pair]], out: Console) -> None:
    for heads, *pairs in filter(lambda group: len(group) > 1, groups):
        if not heads.change:
            out.print(heads.name)
        for pair in pairs:
            out.print(Text(f"  {pair.name}" if pair.a else pair.name, style="" if pair.a else "bold"))
            if pair.a:
                out.print(Text(f"    A {pair.a}  B {pair.b}  ").append(pair.change, style=pair.style))
        out.print()


def _value(value: float | None) -> str:
    return "-" if value is None else figure(value)
