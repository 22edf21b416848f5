"""Pages that need nothing else: a summary with plots, and what a check found. The same tree gives the same bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from loadgen.submission.catalogue import RULES, official_of
from loadgen.submission.check import Checked
from loadgen.submission.findings import Finding
from loadgen.submission.official import verdicts
from loadgen.submission.table import Line
from loadgen.submission.workbook import identifier

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1b1f24; }
h1, h2, h3 { line-height: 1.2; } h3 { margin: 1.5rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; vertical-align: top; }
th { border-bottom: 2px solid #8c959f; } td { border-bottom: 1px solid #d0d7de; overflow-wrap: break-word; }
td.number, th.number { text-align: right; white-space: nowrap; } .error { color: #b3261e; } .ok { color: #1a7f37; }
.warning { color: #8a5a00; } svg text { font: 13px system-ui, sans-serif; fill: #1b1f24; }
.scroll { overflow-x: auto; }
""".strip()


def _page(title: str, body: Iterable[str]) -> str:
    text = "\n".join(body)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{text}\n</body>\n</html>\n"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset()) -> Iterator[str]:
    """Cells are HTML already."""

    def cells(of: Sequence[str], tag: str) -> str:
        marked = (f"<{tag}{' class=number' if at in numbers else ''}>{cell}</{tag}>" for at, cell in enumerate(of))
        return f"<tr>{''.join(marked)}</tr>"

    yield f'<div class="scroll"><table>\n{cells(heads, "th")}'
    yield from (cells(row, "td") for row in rows)
    yield "</table></div>"


def summary_page(lines: Sequence[Line], version: str, refused: int) -> str:
    """Every result in a table, and a plot for each benchmark and scenario."""

    def body() -> Iterator[str]:
        yield f"<p>{_count(len(lines), 'line')} of results that pass by the rules of {escape(version)}."
        yield (
            f"{_count(refused, 'result')} {'is' if refused == 1 else 'are'} refused, and not shown.</p>"
            if refused
            else "</p>"
        )
        heads = "ID system division submitter benchmark scenario result unit accuracy efficiency".split()
        yield from _table(heads, (_row(line, version) for line in lines), frozenset({6, 8, 9}))
        groups: dict[tuple[str, str, str, str], list[Line]] = defaultdict(list)
        for line in lines:
            cells = line.cells
            groups[cells["Division"], cells["MlperfModel"], cells["Scenario"], _unit(line)].append(line)
        for (division, model, scenario, unit), of in sorted(groups.items()):
            yield f"<h3>{escape(f'{model}, {scenario}, {division}')}</h3>"
            yield f'<div class="scroll">{_bars(of, unit)}</div>'

    return _page(f"Results of round {version}", body())


def _unit(line: Line) -> str:
    return str(line.cells["Units"]) if line.is_power else line.unit


def _row(line: Line, version: str) -> list[str]:
    cells = line.cells
    names = (cells["SystemName"], cells["Division"], cells["Organization"], cells["MlperfModel"], cells["Scenario"])
    inferred = " (inferred)" if line.row.measured.inferred else ""
    texts = [
        identifier(line, version)[0],
        *names,
        f"{cells['Result']:,.6g}",
        f"{_unit(line)}{inferred}",
        cells["Accuracy"],
        f"{line.row.power.efficiency:,.5g}/J" if line.row.power and line.is_power else "",
    ]
    return [escape(str(text)) for text in texts]


def _bars(lines: Sequence[Line], unit: str) -> str:
    """Horizontal bars from zero, the largest figure first."""
    ordered = sorted(lines, key=lambda line: (-float(line.cells["Result"]), line.row.place.path))
    most, height, left, width = max(float(line.cells["Result"]) for line in ordered) or 1.0, 26, 300, 480
    parts = [f'<svg role="img" viewBox="0 0 900 {height * len(ordered) + 22}" width="900">']
    parts.append(f"<title>{escape(unit)}</title>")
    for at, line in enumerate(ordered):
        y, value = at * height, float(line.cells["Result"])
        name = f"{line.cells['Organization']}, {line.cells['SystemName']}"
        parts.append(f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{escape(name[:44])}</text>')
        parts.append(f'<rect x="{left}" y="{y + 4}" width="{width * value / most:.1f}" height="16" fill="#0969da"/>')
        parts.append(f'<text x="{left + width * value / most + 8:.1f}" y="{y + 17}">{value:,.5g}</text>')
    parts.append(f'<text x="{left}" y="{height * len(ordered) + 16}">{escape(unit)}</text></svg>')
    return "\n".join(parts)


def check_page(checked: Checked, as_official: bool = False) -> str:
    """What was found, by place, and the verdict on each result, here and officially."""
    said, name = verdicts(checked), checked.requirements.round.name

    def body() -> Iterator[str]:
        yield f"<p>{_verdict(checked.passes)} by the rules of {escape(name)}."
        official = "It stops with a traceback" if said.stops else _verdict(said.passes)
        yield f"By the official v4.0 checker: {official}.</p>" if as_official or name == "v4.0" else "</p>"
        yield "<h2>Results</h2>"
        rows = (
            [
                escape(row.place.path),
                _figure(row.measured.value),
                _taken(not checked.refuses(row.place)),
                _taken(said.results.get(row.place.path)) if not said.stops else "-",
            ]
            for row in checked.rows
        )
        yield from _table(("result", "figure", "here", "officially"), rows, frozenset({1}))
        yield f"<h2>{_count(len(checked.findings), 'finding')}</h2>"
        yield from _table(
            ("rule", "place", "observed", "required", "to fix", "officially"), map(_found, checked.findings)
        )

    return _page("Check of a submission", body())


def _verdict(passes: bool) -> str:
    return '<span class="ok">It passes</span>' if passes else '<span class="error">It does not pass</span>'


def _taken(taken: bool | None) -> str:
    if taken is None:
        return "-"
    return '<span class="ok">taken</span>' if taken else '<span class="error">refused</span>'


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.6g}"


def _found(finding: Finding) -> list[str]:
    rule = RULES[finding.rule]
    level = "warning" if rule.is_warning else "error"
    texts = [finding.place, finding.observed, finding.required, rule.fix, f"it {official_of(finding).value}"]
    return [f'<span class="{level}">{rule.id}</span><br>{escape(rule.what)}', *map(escape, texts)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
