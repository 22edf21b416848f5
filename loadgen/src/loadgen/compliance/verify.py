"""Judge a compliance test by its logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadgen.compliance import answers, performance, tokens
from loadgen.compliance.verdict import Check, Verdict
from loadgen.errors import InputError
from loadgen.rules import ModelRules, Round
from loadgen.settings import Scenario

Score = Callable[[Path], tuple[Mapping[str, float], Mapping[str, float]]]
"""Called with the test's accuracy log: scores of the samples that it has, by the accuracy run's answers and by its
own. Raises InputError where a part of the samples has no score."""


@dataclass(frozen=True)
class Runs:
    """Folders of logs."""

    performance: Path
    """Of the performance run that the test is compared with."""
    accuracy: Path
    test: Path


def verify(rules: Round, model: str, test: str, scenario: Scenario, runs: Runs, score: Score | None = None) -> Verdict:
    """What a test came to. Raises InputError for a test that the round has not, and for damaged or missing logs.

    score: how TEST01 goes on where answers differ; None: it fails.
    """
    found, asked = rules.model(model), rules.tests.get(test)
    if asked is None:
        raise InputError(f"round {rules.name} has no {test}: it has {', '.join(rules.tests)}")
    if asked.eos_token is not None:
        checks, text = tokens.verify(runs.test / "mlperf_log_accuracy.json", scenario, asked.eos_token)
        return Verdict(scenario, test, checks, texts={"verify_accuracy.txt": text})
    keys = performance.keys_of(asked, rules.early_stopping)
    speeds = (performance.read_speed(run, scenario, keys) for run in (runs.performance, runs.test))
    check, text = performance.compare(asked, scenario, *speeds)
    texts = {"verify_performance.txt": text}
    if test != "TEST01":
        return Verdict(scenario, test, (check,), texts=texts)
    log = runs.test / "mlperf_log_accuracy.json"
    compared = answers.compare(runs.accuracy / "mlperf_log_accuracy.json", log)
    texts["verify_accuracy.txt"] = compared.text()
    scores, scored = _scored(rules, found, test, compared, log, score)
    return Verdict(scenario, test, (check, compared.check()), scores, {**texts, **scored})


def _scored(
    rules: Round, model: ModelRules, test: str, compared: answers.Compared, log: Path, score: Score | None
) -> tuple[dict[float, Check], dict[str, str]]:
    """(by ratio, whether the score holds where answers differ; files of the folder `accuracy`)."""
    if score is None or not compared.matched:
        return {}, {}
    try:
        before, after = score(log)
    except InputError as error:
        if compared.same:
            return {}, {"accuracy/accuracy.txt": f"not scored: {error}\n"}
        check = Check("score", False, f"the logged samples have no score of their own: {error}")
        return dict.fromkeys(model.ratios, check), {"accuracy/accuracy.txt": f"not scored: {error}\n"}
    line = model.write_accuracy(after) + "\n"
    if compared.same:
        return {}, {"accuracy/accuracy.txt": line}
    shares = rules.tests[test].max_score_change
    return {ratio: _changed(model, before, after, shares[ratio]) for ratio in model.ratios}, {
        "accuracy/accuracy.txt": line,
        "accuracy/baseline_accuracy.txt": model.write_accuracy(before) + "\n",
        "accuracy/compliance_accuracy.txt": line,
    }


def _changed(model: ModelRules, before: Mapping[str, float], after: Mapping[str, float], share: float) -> Check:
    """Did a judged score of the logged samples change by more than this share of it?"""
    said, passed = [], True
    for name, metric in model.metrics.items():
        allowed = share if metric.max_change is None else metric.max_change
        changed = abs(1 - before[name] / after[name]) if before[name] and after[name] else float("inf")
        passed &= changed <= allowed
        said.append(f"{name} {before[name]:.6g} -> {after[name]:.6g} ({100 * changed:.3g} % of {100 * allowed:g} %)")
    return Check("score", passed, "of the logged samples: " + ", ".join(said))
