"""Systems that do something wrong, with the official wheel and with `loadgen.compat`: the same errors, as many."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlperf_loadgen
import official
import pytest

from loadgen import compat

COUNT, EVERY = 60, 10
# What a system does with one sample of ten: by what reports a first token, and what completes the sample.
Fault = Callable[[Callable[[], None], Callable[..., None]], None]
TOKEN_FAULTS: dict[str, Fault] = {
    "no first token": lambda first, complete: complete(5),
    "first token after the last": lambda first, complete: (complete(5), first()),
    "two first tokens": lambda first, complete: (first(), first(), complete(5)),
    "zero tokens": lambda first, complete: (first(), complete(0)),
    "one token": lambda first, complete: (first(), complete(1)),
    "a negative number of tokens": lambda first, complete: (first(), complete(-3)),
    "no number of tokens": lambda first, complete: (first(), complete()),
    "nothing wrong": lambda first, complete: (first(), complete(5)),
}


def run(lg: Any, fault: Fault, scenario: str, outdir: Path) -> tuple[Counter[str], dict[str, Any]]:
    """The errors of a test, without the ids that ours name, and what does not depend on the time."""
    outdir.mkdir()
    answered = [0]

    def issue(samples: list[Any]) -> None:
        for sample in samples:
            one = sample.id
            right = TOKEN_FAULTS["nothing wrong"]
            answered[0] += 1
            (fault if answered[0] % EVERY == 0 else right)(
                lambda one=one: lg.FirstTokenComplete([lg.QuerySampleResponse(one, 0, 0)]),
                lambda *tokens, one=one: lg.QuerySamplesComplete([lg.QuerySampleResponse(one, 0, 0, *tokens)]),
            )

    settings = lg.TestSettings()
    if lg is compat:
        settings.revision = official.REVISION
    settings.scenario, settings.use_token_latencies = getattr(lg.TestScenario, scenario), True
    settings.min_duration_ms, settings.min_query_count = 0, COUNT
    settings.server_target_qps = settings.offline_expected_qps = 10_000
    settings.ttft_latency = settings.tpot_latency = 10**10
    log, output = lg.LogSettings(), lg.LogOutputSettings()
    output.outdir = str(outdir)
    log.log_output, log.enable_trace = output, False
    sut = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(16, 16, lambda _: None, lambda _: None)
    lg.StartTestWithLogSettings(sut, library, settings, log, str(outdir / "none"))
    text = (outdir / "mlperf_log_detail.txt").read_text()
    entries = [official.parse(line) for line in text.split(":::MLLOG ")[1:]]
    errors = [str(entry["value"]) for entry in entries if entry["key"] == "error_runtime"]
    kept = ("result_validity", "result_query_count", "result_min_queries_met", "result_min_duration_met")
    return (
        Counter(re.split(r"\.?$|: id ", error)[0] for error in errors if "PerfClock" not in error),
        {entry["key"]: entry["value"] for entry in entries if entry["key"] in kept},
    )


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
@pytest.mark.parametrize("fault", TOKEN_FAULTS)
def test_faults_of_tokens_are_the_official_errors(fault: str, scenario: str, tmp_path: Path) -> None:
    theirs = run(mlperf_loadgen, TOKEN_FAULTS[fault], scenario, tmp_path / "official")
    assert run(compat, TOKEN_FAULTS[fault], scenario, tmp_path / "ours") == theirs
