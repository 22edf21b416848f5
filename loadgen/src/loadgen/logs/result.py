"""`result.json`: the whole truth on a test in one place, ours alone."""

from __future__ import annotations

import time

from loadgen.results import Result
from loadgen.settings import EffectiveSettings

RESULT_SCHEMA = 1  # of result.json; grows when a field changes its meaning


def result_record(result: Result) -> dict[str, object]:
    """`result.json`: the result without its columns. `schema` names this layout's version."""
    return {
        "schema": RESULT_SCHEMA,
        "scenario": result.scenario.name,
        "mode": result.mode.name,
        "valid": result.valid,
        "reasons": list(result.reasons),
        "errors": list(result.errors),
        "warnings": list(result.warnings),
        "interrupted": result.interrupted,
        "headline": vars(result.headline) if result.headline else None,
        "query_count": result.query_count,
        "sample_count": result.sample_count,
        "duration_ns": result.duration_ns,
        "metrics": dict(result.metrics),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def unfinished_record(settings: EffectiveSettings) -> dict[str, object]:
    """`result.json` of a test that goes on: what stays there if its process is killed."""
    return {
        "schema": RESULT_SCHEMA,
        "scenario": settings.scenario.name,
        "mode": settings.mode.name,
        "valid": False,
        "reasons": [
            "the test has not ended; if its process has, it was killed: the logs hold what was measured so far"
        ],
        "errors": [],
        "warnings": [],
        "interrupted": True,
        "headline": None,
        "query_count": 0,
        "sample_count": 0,
        "duration_ns": 0,
        "metrics": {},
        "finished": None,
    }
