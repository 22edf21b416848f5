"""FindPeakPerformance: which rates are tested, in which order, and what is found."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import mlperf_loadgen
import official
import pytest

from loadgen import compat

_LIMIT_NS = 150_000_000  # a busy machine may stall for tens of milliseconds


def _messages(lg: Any, outcomes: list[bool], changes: dict[str, Any], outdir: Path) -> list[tuple[str, str]]:
    """What one search logs. The k-th test holds its latency limit if outcomes[k]; later ones don't."""
    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.Server, lg.TestMode.FindPeakPerformance
    settings.min_duration_ms, settings.min_query_count = 0, 3
    settings.server_target_qps, settings.server_target_latency_ns = 10_000.0, _LIMIT_NS
    for name, value in changes.items():
        setattr(settings, name, value)
    tests = iter(outcomes)
    waiting: list[Any] = []

    def flush() -> None:
        if not next(tests, False):
            time.sleep(_LIMIT_NS * 1.1e-9)
        lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0) for sample in waiting])
        waiting.clear()

    log = lg.LogSettings()
    log.log_output = lg.LogOutputSettings()
    log.log_output.outdir, log.enable_trace = str(outdir), False
    outdir.mkdir()
    if lg is compat:
        settings.revision = official.REVISION
    sut = lg.ConstructSUT(waiting.extend, flush)
    library = lg.ConstructQSL(8, 8, lambda _: None, lambda _: None)
    lg.StartTestWithLogSettings(sut, library, settings, log, str(outdir / "no-audit.config"))
    lg.DestroySUT(sut)
    lg.DestroyQSL(library)
    text = (outdir / "mlperf_log_detail.txt").read_text()
    entries = [official.parse(line) for line in text.split(":::MLLOG ")[1:]]
    kept = ("generic_message", "error_runtime", "generated_query_duration")
    return [(e["key"], str(e["value"])) for e in entries if e["key"] in kept]


@pytest.mark.parametrize("seed", range(6))
def test_search_tests_the_official_rates(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    outcomes = [True] * rng.randint(0, 3) + [False] + [rng.random() < 0.6 for _ in range(12)]
    changes = {
        "server_find_peak_qps_decimals_of_precision": rng.choice([0, 1]),
        "server_find_peak_qps_boundary_step_size": rng.choice([0.001, 0.0005, 1.0]),
        "server_target_qps": rng.choice([4000.0, 5001.5, 9999.9]),
    }
    theirs = _messages(mlperf_loadgen, outcomes, changes, tmp_path / "official")
    assert _messages(compat, outcomes, changes, tmp_path / "ours") == theirs
