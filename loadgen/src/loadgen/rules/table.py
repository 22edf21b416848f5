"""A round's rules as a table to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadgen.rules.model import ModelRules
from loadgen.rules.round import ComplianceTest, Round
from loadgen.settings import Scenario

_MS = 1_000_000
_SHORT = {
    Scenario.SingleStream: "SS",
    Scenario.MultiStream: "MS",
    Scenario.Server: "Server",
    Scenario.Offline: "Offline",
}


def table(rules: Round) -> str:
    """Everything that a reader compares between rounds; `Round.conf_text` has every setting."""
    lines = [f"Round {rules.name}", "", "seeds"]
    lines += [f"  {name:<30}{seed}" for name, seed in rules.seeds.items()]
    if "TEST05" in rules.tests:
        lines += [f"  {'TEST05 ' + name:<30}{seed}" for name, seed in rules.test05_seeds.items()]
    lines += ["", *_aligned([("scenario", "min duration", "percentile", "min queries"), *_scenarios(rules)])]
    head = ("model", "datacenter", "edge", "drawn from", "data set", "Offline", "Server", "compliance")
    lines += ["", *_aligned([head, *(_model(model) for model in rules.models.values())])]
    lines += ["", "scores that pass", *_scores(rules)]
    lines += ["", "compliance tests", *_aligned([_compliance(test) for test in rules.tests.values()])]
    lines += [
        f"\nimages of {model.model}\n  {' '.join(map(str, model.images))}"
        for model in rules.models.values()
        if model.images
    ]
    if rules.absent:
        lines += ["", "not in this round", *_aligned(list(rules.absent.items()))]
    lines += ["", "in brackets: not required. SS: SingleStream, MS: MultiStream. Offline: its fewest samples."]
    return "\n".join(lines) + "\n"


def _scenarios(rules: Round) -> Iterator[tuple[str, ...]]:
    for scenario, keys in rules.scenarios.items():
        seconds = f"{rules.min_duration_ms(scenario) / 1000:g} s"
        percentile, queries = keys.get("target_latency_percentile", ""), keys.get("min_query_count", 0)
        yield scenario.name, seconds, f"{percentile}", f"{queries:,}" if queries else ""


def _model(rules: ModelRules) -> tuple[str, ...]:
    return (
        rules.model,
        _places(rules, "datacenter"),
        _places(rules, "edge"),
        f"{rules.performance_sample_count:,}",
        f"{rules.dataset_size:,}",
        f"{rules.offline_min_samples:,}",
        _latency(rules),
        " ".join(test.removeprefix("TEST") for test in rules.compliance) or "none",
    )


def _places(rules: ModelRules, category: str) -> str:
    required = [_SHORT[each] for each in rules.scenarios.get(category, ())]
    optional = [f"({_SHORT[each]})" for each in rules.optional_scenarios.get(category, ())]
    return ", ".join([*required, *optional]) or "-"


def _latency(rules: ModelRules) -> str:
    if limits := rules.token_limits:
        tight = rules.interactive_limits
        also = f" (Interactive {tight.first_ns // _MS} + {tight.each_ns // _MS})" if tight else ""
        return f"{limits.first_ns // _MS:,} + {limits.each_ns // _MS} ms a token{also}"
    return "-" if rules.server_latency_ns is None else f"{rules.server_latency_ns // _MS:,} ms"


def _scores(rules: Round) -> list[str]:
    rows = []
    for name, model in rules.models.items():
        for ratio in model.ratios:
            limits = model.limits(ratio)
            texts = [f"{metric} {_range(*limits[metric])}" for metric in limits]
            rows.append((rules.benchmark_name(name, ratio), ", ".join(texts)))
    return _aligned(rows)


def _compliance(test: ComplianceTest) -> tuple[str, str]:
    bounds = [
        f"at most {100 * share:g} % {word}"
        for share, word in ((test.max_gain, "faster"), (test.max_loss, "slower"))
        if share is not None
    ]
    if test.relaxed is not None:
        short = ", ".join(f"{_SHORT[each]} {ns / _MS:g} ms" for each, ns in test.relaxed_below.items())
        bounds.append(f"{100 * test.relaxed:g} % up to {short}")
    return test.name, "; ".join(bounds) or "not compared"


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{low:.10g} to {high:.10g}"
    return f">= {low:.10g}" if low is not None else f"<= {high:.10g}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
