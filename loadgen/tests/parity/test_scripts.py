"""Scripts written for the official module, run with it and with `loadgen.compat`: their logs tell the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlperf_loadgen
import numpy as np
import official
import pytest

from loadgen import compat
from loadgen.logs import read_trace
from loadgen.settings import Revision

ANSWERS = np.arange(64, dtype=np.int64) * 3
SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
# What speaks of the official build, its logger, or a difference between two clocks of a shared machine.
_OF_THE_BUILD = ("error_uncommitted_loadgen_changes", "logger_")
_OF_THE_MACHINE = ("Logging allocation", "CAS failed", "PerfClock")


def response(lg: Any, sample_id: int, index: int, tokens: int = 0) -> Any:
    return lg.QuerySampleResponse(sample_id, int(ANSWERS.ctypes.data) + 8 * index, 8, tokens)


def asked(lg: Any, scenario: str, mode: str, **changes: Any) -> Any:
    """Settings whose query counts do not depend on the time."""
    settings = lg.TestSettings()
    if lg is compat:
        settings.revision = official.REVISION
    settings.scenario, settings.mode = getattr(lg.TestScenario, scenario), getattr(lg.TestMode, mode)
    settings.min_duration_ms, settings.min_query_count = 0, 150
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = 50_000
    settings.server_target_qps = settings.offline_expected_qps = 20_000
    settings.server_target_latency_ns = settings.ttft_latency = settings.tpot_latency = 10**10
    settings.qsl_rng_seed, settings.sample_index_rng_seed, settings.schedule_rng_seed = 3, 5, 7
    for name, value in changes.items():
        setattr(settings, name, value)
    return settings


def run(lg: Any, outdir: Path, settings: Any, *, fast: bool = False, network: bool = False, **output: Any) -> None:
    """What a submission's script does."""
    tokens = settings.use_token_latencies

    def complete(ids: list[int], indices: list[int]) -> None:
        pairs = list(zip(ids, indices, strict=True))
        if tokens:
            lg.FirstTokenComplete([response(lg, i, k) for i, k in pairs])
        lg.QuerySamplesComplete([response(lg, i, k, 2 + k % 3 if tokens else 0) for i, k in pairs])

    def issue(samples: list[Any]) -> None:
        complete([s.id for s in samples], [s.index for s in samples])

    log = lg.LogSettings()
    log.log_output = lg.LogOutputSettings()
    log.log_output.outdir = str(outdir)
    for name, value in output.items():
        setattr(log.log_output, name, value)
    library = lg.ConstructQSL(64, 16, lambda _: None, lambda _: None)
    if network:
        sut = lg.ConstructQDL(issue, lambda: None, lambda: "a system far away")
    else:
        sut = lg.ConstructFastSUT(complete, lambda: None) if fast else lg.ConstructSUT(issue, lambda: None)
    lg.StartTestWithLogSettings(sut, library, settings, log, str(outdir / "audit.config"))
    (lg.DestroyQDL if network else lg.DestroyFastSUT if fast else lg.DestroySUT)(sut)
    lg.DestroyQSL(library)


def plain(scenario: str, mode: str, **changes: Any) -> Callable[[Any, Path], None]:
    return lambda lg, outdir: run(lg, outdir, asked(lg, scenario, mode, **changes))


def with_config(lg: Any, outdir: Path) -> None:
    (outdir / "user.conf").write_text(
        "*.SingleStream.target_latency = 0.05\n*.*.min_query_count = 77\nmodel.*.min_duration = 0\n"
        "*.SingleStream.target_latency_percentile = 95\n*.*.performance_sample_count_override = 9\n"
    )
    settings = asked(lg, "SingleStream", "PerformanceOnly")
    more = () if official.REVISION is Revision.V4_0 else (2,)
    assert settings.FromConfig(str(outdir / "user.conf"), "model", "SingleStream", *more) == 0
    run(lg, outdir, settings)


def with_audit(lines: str) -> Callable[[Any, Path], None]:
    def script(lg: Any, outdir: Path) -> None:
        (outdir / "audit.config").write_text(lines)
        run(lg, outdir, asked(lg, "Server", "PerformanceOnly", test05_sample_index_rng_seed=11, test05_qsl_rng_seed=13))

    return script


def of_a_kind(**how: Any) -> Callable[[Any, Path], None]:
    return lambda lg, outdir: run(lg, outdir, asked(lg, "MultiStream", "AccuracyOnly"), **how)


SCRIPTS = {
    **{f"{s} {m}": plain(s, m) for s in SCENARIOS for m in ("PerformanceOnly", "AccuracyOnly", "SubmissionRun")},
    **{f"{s} tokens": plain(s, "PerformanceOnly", use_token_latencies=True) for s in SCENARIOS},
    **{f"{s} logs a third": plain(s, "PerformanceOnly", accuracy_log_probability=0.33) for s in SCENARIOS},
    "Server accuracy with tokens": plain("Server", "AccuracyOnly", use_token_latencies=True),
    "SingleStream stops early": plain("SingleStream", "PerformanceOnly", max_query_count=20),
    "Server stops early": plain("Server", "PerformanceOnly", max_query_count=20),
    "SingleStream runs out": plain("SingleStream", "PerformanceOnly", min_duration_ms=1000, min_query_count=1,
                                   single_stream_expected_latency_ns=10**8),
    "Offline impossible rate": plain("Offline", "PerformanceOnly", offline_expected_qps=-2),
    "unique and same": plain("Server", "PerformanceOnly", performance_issue_unique=True, performance_issue_same=True),
    "fast system": of_a_kind(fast=True),
    "network system": of_a_kind(network=True),
    "other file names": of_a_kind(prefix="my_", suffix="_1"),
    "user.conf": with_config,
    "TEST05": with_audit("*.*.test05 = 1\n"),
    "audit file": with_audit("*.*.accuracy_log_rng_seed = 720381539243781796\n*.*.accuracy_log_sampling_target = 16\n"),
    "audit file that contradicts": with_audit("*.*.performance_issue_same = 1\n*.*.performance_issue_unique = 1\n"),
    "audit file of the same sample": with_audit("*.*.performance_issue_same = 1\n*.*.min_query_count = 60\n"),
}  # fmt: skip


def _entries(path: Path) -> list[tuple[str, Any]]:
    entries = [official.parse(line) for line in path.read_text().split(":::MLLOG ")[1:]]
    dropped = [e for e in entries if e["key"].startswith(_OF_THE_BUILD)]
    dropped += [e for e in entries if str(e["value"]).startswith(_OF_THE_MACHINE)]
    errors = sum(e["metadata"]["is_error"] for e in dropped)
    kept = [(e["key"], e["value"]) for e in entries if e not in dropped]
    return [(key, value - errors if key == "num_errors" else value) for key, value in kept]


def _is_timed(key: str) -> bool:
    """Does the value speak of the time, or of who made the log?"""
    return key.startswith(("loadgen_", "power_", "early_stopping_", "test_datetime", "get_sut_name", "result_")) and (
        not key.endswith(("_met", "_validity", "_query_count"))
    )


def _labels(path: Path) -> list[str]:
    """The summary without what was measured, and without the counts of warnings and errors, of the logger too."""
    body = re.split(r"\n(?:No|\d+) warnings? encountered", path.read_text())[0]
    head, _, parameters = body.rpartition("Test Parameters Used")
    return [*(line.partition(": ")[0].rstrip("0123456789() ") for line in head.split("\n")), parameters]


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_logs_the_same(name: str, tmp_path: Path) -> None:
    """Files, keys in their order, values that do not depend on the time, and every logged answer."""
    folders = tmp_path / "official", tmp_path / "ours"
    for lg, outdir in zip((mlperf_loadgen, compat), folders, strict=True):
        outdir.mkdir()
        SCRIPTS[name](lg, outdir)
    theirs, ours = folders
    names = sorted(path.name for path in theirs.iterdir())
    more = {"result.json", "mlperf_log_summary_note.txt"}  # ours alone
    assert sorted(path.name for path in ours.iterdir() if path.name not in more) == names
    for file in names:
        if "detail" in file:
            a, b = _entries(ours / file), _entries(theirs / file)
            assert [key for key, _ in a] == [key for key, _ in b]
            assert [x for x in a if not _is_timed(x[0])] == [x for x in b if not _is_timed(x[0])]
        elif "accuracy" in file:
            assert (ours / file).read_text() == (theirs / file).read_text()
        elif "summary" in file:
            assert _labels(ours / file) == _labels(theirs / file)
        elif "trace" in file:
            assert _spans(ours / file) == _spans(theirs / file)


def _spans(path: Path) -> Counter[tuple[Any, ...]]:
    """The events of samples and tokens, without their times."""
    names = ("Sample", "Token", "Latency", "Token_Latency")
    return Counter(
        (
            event["name"],
            event["ph"],
            event.get("id"),
            *sorted((k, v) for k, v in event["args"].items() if k[-2:] != "ns"),
        )
        if "args" in event and event["ph"] != "C"
        else (event["name"], event["ph"], event.get("id"))
        for event in read_trace(path)
        if event["name"] in names
    )


def calls_of(lg: Any, outdir: Path, scenario: str, mode: str) -> list[str]:
    """The callbacks of a test over a network, in order, without repetition; its name is counted each time."""
    calls: list[str] = []

    def note(call: str) -> None:
        if call == "name" or calls[-1:] != [call]:
            calls.append(call)

    def issue(samples: list[Any]) -> None:
        note("issue")
        lg.QuerySamplesComplete([response(lg, s.id, s.index) for s in samples])

    def name() -> str:
        note("name")
        return "a system far away"

    outdir.mkdir()
    log, output = lg.LogSettings(), lg.LogOutputSettings()
    output.outdir = str(outdir)
    log.log_output = output
    sut = lg.ConstructQDL(issue, lambda: note("flush"), name)
    library = lg.ConstructQSL(64, 16, lambda _: note("load"), lambda _: note("unload"))
    lg.StartTestWithLogSettings(sut, library, asked(lg, scenario, mode), log, str(outdir / "none"))
    return calls


@pytest.mark.parametrize("mode", ["PerformanceOnly", "AccuracyOnly", "SubmissionRun"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_callbacks_come_in_the_official_order(scenario: str, mode: str, tmp_path: Path) -> None:
    """A system over a network is asked for its name when officially it is."""
    theirs = calls_of(mlperf_loadgen, tmp_path / "official", scenario, mode)
    assert calls_of(compat, tmp_path / "ours", scenario, mode) == theirs
