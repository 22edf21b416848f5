"""One test of one load generator against a null system, in a process of its own: prints one JSON line.

`python null_systems.py API CASE RATE SECONDS`: API is official, compat or native. The systems do the same on
each: answer at once, or hand the sample to one of two worker threads, which answers.
"""

from __future__ import annotations

import json
import queue
import resource
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LIMIT_NS = 10_000_000  # Server: latency limit

# The expected latency must be below the real one, or a test runs out of queries: each API gets its own.
STREAM_HINT_NS = {"official": 2000, "compat": 1000, "native": 400}
MULTI_HINT_NS = {"official": 8000, "compat": 4000, "native": 2500}
TOKENS_HINT_NS = {"official": 4000, "compat": 2000, "native": 800}


@dataclass(frozen=True)
class Case:
    """What is asked of the load generator."""

    scenario: str
    tokens: bool = False
    """Samples report a first token and how many there were."""
    logged: float = 0.0
    """The share of answers that are logged; 1: an accuracy test of all samples."""
    size: int = 0
    """Bytes of an answer."""
    pool: bool = False
    """Two threads answer."""
    trace: bool = False
    """A span is logged for each sample."""


CASES = {
    "single": Case("SingleStream"),
    "multi": Case("MultiStream"),
    "server": Case("Server"),
    "offline": Case("Offline"),
    "pool": Case("Server", pool=True),
    "single-tokens": Case("SingleStream", tokens=True),
    "single-logged": Case("SingleStream", logged=0.01, size=8),
    "multi-tokens": Case("MultiStream", tokens=True),
    "offline-tokens": Case("Offline", tokens=True),
    "server-tokens": Case("Server", tokens=True),
    "single-trace": Case("SingleStream", trace=True),
    "accuracy": Case("Offline", logged=1.0, size=8),
    "accuracy-1kB": Case("SingleStream", logged=1.0, size=1000),
    "accuracy-3MB": Case("SingleStream", logged=1.0, size=3_000_000),
}


def samples_of(case: Case, rate: float) -> int:
    """Of the library: what an accuracy test runs through."""
    return int(rate) if case.logged == 1 else 1024


def settings_for(api: str, case: Case, rate: float, seconds: float) -> dict[str, Any]:
    """TestSettings attributes, the same names on every API."""
    single = TOKENS_HINT_NS if case.tokens else STREAM_HINT_NS
    wanted = {
        "scenario": case.scenario,
        "mode": "AccuracyOnly" if case.logged == 1 else "PerformanceOnly",
        "min_duration_ms": int(seconds * 1000),
        "min_query_count": 100,
        "single_stream_expected_latency_ns": float(single[api]),
        "multi_stream_expected_latency_ns": float(MULTI_HINT_NS[api]),
        "server_target_qps": float(rate),
        "server_target_latency_ns": LIMIT_NS,
        "offline_expected_qps": rate / 1.1 / max(seconds, 1e-9),
        "use_token_latencies": case.tokens,
        "accuracy_log_probability": case.logged % 1,
    }
    if case.tokens:
        names = ("server_ttft_latency", "server_tpot_latency") if api == "native" else ("ttft_latency", "tpot_latency")
        wanted |= dict.fromkeys(names, 10**9)
    return wanted


def pool(answer: Any) -> Any:
    """Two threads that answer what is put into their queue."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        while (item := waiting.get()) is not None:
            answer(item)

    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    return waiting


def run_official_api(lg: Any, case: Case, samples: int, wanted: dict[str, Any], outdir: str) -> None:
    """The official Python API, of the official wheel or of loadgen.compat."""
    settings = lg.TestSettings()
    kinds = {"scenario": lg.TestScenario, "mode": lg.TestMode}
    for name, value in wanted.items():
        setattr(settings, name, getattr(kinds[name], value) if name in kinds else value)
    buffer = np.arange(max(case.size, 1)).astype(np.uint8)
    response, done, address = lg.QuerySampleResponse, lg.QuerySamplesComplete, int(buffer.ctypes.data) * (case.size > 0)

    def answer(query: Any) -> None:
        done([response(s.id, address, case.size) for s in query])

    def answer_tokens(query: Any) -> None:
        lg.FirstTokenComplete([response(s.id, 0, 0) for s in query])
        done([response(s.id, 0, 0, 5) for s in query])

    issue = answer_tokens if case.tokens else pool(answer).put if case.pool else answer
    sut = lg.ConstructSUT(issue, lambda: None)
    qsl = lg.ConstructQSL(samples, samples, lambda x: None, lambda x: None)
    log = lg.LogSettings()
    output = lg.LogOutputSettings()
    output.outdir = outdir
    log.log_output = output
    log.enable_trace = case.trace
    lg.StartTestWithLogSettings(sut, qsl, settings, log, "no-audit.config")


class Library:
    name = "null"

    def __init__(self, samples: int) -> None:
        self.total_count = self.performance_count = samples

    def load(self, indices: Any) -> None: ...

    def unload(self, indices: Any) -> None: ...


class System:
    """The native API's null system."""

    name = "null"

    def __init__(self, case: Case, samples: int) -> None:
        self.case = case
        several = samples if case.scenario == "Offline" and case.logged else 1
        self.data = np.arange(case.size * several).astype(np.uint8)
        self.offsets = np.arange(several + 1) * case.size

    def start(self, respond: Any) -> None:
        complete, first, data, offsets = respond.complete, respond.first_token, self.data, self.offsets
        waiting = pool(complete) if self.case.pool else None
        self.issue = {
            "pool": lambda ids, indices: waiting.put(ids),
            "tokens": lambda ids, indices: (first(ids), complete(ids, n_tokens=5)),
            "one answer": lambda ids, indices: complete(ids, data),
            "answers": lambda ids, indices: complete(ids, data, offsets),
            "": lambda ids, indices: complete(ids),
        }[self.kind]

    @property
    def kind(self) -> str:
        if self.case.size:
            return "answers" if self.case.scenario == "Offline" else "one answer"
        return "tokens" if self.case.tokens else "pool" if self.case.pool else ""

    def flush(self) -> None: ...

    def stop(self) -> None: ...


def run_native_api(case: Case, samples: int, wanted: dict[str, Any], outdir: str) -> None:
    from loadgen.logs import LogSettings
    from loadgen.run import run
    from loadgen.settings import Mode, Scenario, TestSettings

    values = {**wanted, "scenario": Scenario[wanted["scenario"]], "mode": Mode[wanted["mode"]]}
    run(
        System(case, samples),
        Library(samples),
        TestSettings(**values),
        log=LogSettings(Path(outdir), enable_trace=case.trace),
    )


def measured(outdir: str) -> dict[str, Any]:
    """What the detail log reports."""
    found: dict[str, Any] = {}
    for line in (Path(outdir) / "mlperf_log_detail.txt").read_text().splitlines():
        if '"key": "result_' in line:
            entry = json.loads(line.removeprefix(":::MLLOG "))
            found[entry["key"].removeprefix("result_")] = entry["value"]
    return found


def main(api: str, case: Case, rate: float, seconds: float) -> None:
    wanted, samples = settings_for(api, case, rate, seconds), samples_of(case, rate)
    with tempfile.TemporaryDirectory() as outdir:
        if api == "official":
            import mlperf_loadgen as lg
        elif api == "compat":
            import loadgen.compat as lg
        else:
            import loadgen.run  # noqa: F401 - imported before the clock starts, as the others
        before, cpu = time.perf_counter(), time.process_time()
        if api == "native":
            run_native_api(case, samples, wanted, outdir)
        else:
            run_official_api(lg, case, samples, wanted, outdir)
        wall, cpu = time.perf_counter() - before, time.process_time() - cpu
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"wall": wall, "cpu": cpu, "peak_mb": peak_mb, **measured(outdir)}))


if __name__ == "__main__":
    main(sys.argv[1], CASES[sys.argv[2]], float(sys.argv[3]), float(sys.argv[4]))
