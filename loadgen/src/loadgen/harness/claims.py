"""What keeps a run from being a benchmark result before it has begun: profile, files, samples, settings, system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from loadgen.harness.assets.cache import checked
from loadgen.harness.machine import needs
from loadgen.harness.plan import Plan
from loadgen.rules import load_round
from loadgen.settings import TestSettings

_FREE = {
    "single_stream_expected_latency_ns",
    "multi_stream_expected_latency_ns",
    "server_target_qps",
    "offline_expected_qps",
    "server_coalesce_queries",
    "server_num_issue_query_threads",
    "print_timestamps",
}
"""Settings that the rules leave to a system."""

_AT_LEAST = {"min_duration_ms", "min_query_count"}
"""Settings that may be larger than the rules'."""


def shortfalls(plan: Plan, samples: int, facts: Mapping[str, str]) -> tuple[str, ...]:
    """A clause for each; empty: if its tests pass, this is a benchmark result.

    samples: of the data set; facts: of the machine. Reads official files whole, once, and remembers their checksums.
    """
    if not plan.profile.is_official:
        return (f"the {plan.profile_name} profile is {plan.profile.summary}",)
    return (*_files(plan), *_samples(plan, samples), *_system(plan, facts), *_settings(plan))


def _files(plan: Plan) -> Iterator[str]:
    """Those that are there and wrong: a run that needs one which is missing does not begin."""
    for asset in needs.assets(plan):
        file = plan.folder / asset.path
        if file.is_file() and (wrong := checked(asset, file)):
            yield f"{asset.path} is {wrong}"


def _samples(plan: Plan, samples: int) -> Iterator[str]:
    if plan.profile.samples and samples != plan.profile.samples:
        yield f"the data set has {samples:,} samples, the official one {plan.profile.samples:,}"
    elif plan.profile.samples and plan.rules.dataset_size != samples:
        yield f"round {plan.request.overrides.round} has a data set of {plan.rules.dataset_size:,} samples"


def _system(plan: Plan, facts: Mapping[str, str]) -> Iterator[str]:
    if plan.device != "cpu" and not any(name.startswith("gpu") for name in facts):
        yield "the GPU is not identified: install loadgen's extra gpu"


def _settings(plan: Plan) -> Iterator[str]:
    """Each setting that the rules fix and a later layer changed."""
    rules = load_round(plan.request.overrides.round)
    for test in plan.tests:
        scenario = test.settings.scenario
        base = TestSettings(scenario=scenario, mode=test.settings.mode, revision=rules.revision)
        asked = rules.settings(plan.benchmark.model, scenario, base)
        for field in fields(asked):
            said = _differs(field.name, getattr(test.settings, field.name), getattr(asked, field.name))
            if said:
                origin = test.origin.get(field.name, "default")
                yield f"{scenario.name} {test.settings.mode.name}: {field.name} is {said} ({origin})"


def _differs(name: str, value: Any, asked: Any) -> str:
    if value == asked or name in _FREE or (name in _AT_LEAST and value > asked):
        return ""
    return f"{value}, by the rules {asked}"
