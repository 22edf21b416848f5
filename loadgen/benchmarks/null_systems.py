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
from pathlib import Path
from typing import Any

SAMPLES = 1024
LIMIT_NS = 10_000_000  # Server: latency limit

# The expected latency must be below the real one, or a test runs out of queries: each API gets its own.
STREAM_HINT_NS = {"official": 2000, "compat": 1000, "native": 400}
MULTI_HINT_NS = {"official": 8000, "compat": 4000, "native": 2500}


def settings_for(api: str, case: str, rate: float, seconds: float) -> dict[str, Any]:
    """TestSettings attributes, the same names on every API."""
    scenario = {"single": "SingleStream", "multi": "MultiStream", "offline": "Offline"}.get(case, "Server")
    return {
        "scenario": scenario,
        "min_duration_ms": int(seconds * 1000),
        "min_query_count": 100,
        "single_stream_expected_latency_ns": float(STREAM_HINT_NS[api]),
        "multi_stream_expected_latency_ns": float(MULTI_HINT_NS[api]),
        "server_target_qps": float(rate),
        "server_target_latency_ns": LIMIT_NS,
        "offline_expected_qps": rate / 1.1 / max(seconds, 1e-9),
    }


def pool(answer: Any) -> Any:
    """Two threads that answer what is put into their queue."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        while (item := waiting.get()) is not None:
            answer(item)

    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    return waiting


def run_official_api(lg: Any, case: str, wanted: dict[str, Any], outdir: str) -> None:
    """The official Python API, of the official wheel or of loadgen.compat."""
    settings = lg.TestSettings()
    settings.mode = lg.TestMode.PerformanceOnly
    for name, value in wanted.items():
        setattr(settings, name, getattr(lg.TestScenario, value) if name == "scenario" else value)

    def answer(samples: Any) -> None:
        lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples])

    issue = pool(answer).put if case == "pool" else answer
    sut = lg.ConstructSUT(issue, lambda: None)
    qsl = lg.ConstructQSL(SAMPLES, SAMPLES, lambda x: None, lambda x: None)
    log = lg.LogSettings()
    output = lg.LogOutputSettings()
    output.outdir = outdir
    log.log_output = output
    log.enable_trace = False
    lg.StartTestWithLogSettings(sut, qsl, settings, log, "no-audit.config")


class Library:
    name, total_count, performance_count = "null", SAMPLES, SAMPLES

    def load(self, indices: Any) -> None: ...

    def unload(self, indices: Any) -> None: ...


class System:
    """The native API's null system."""

    name = "null"

    def __init__(self, case: str) -> None:
        self.case = case

    def start(self, respond: Any) -> None:
        self.complete = respond.complete
        if self.case == "pool":
            waiting = pool(respond.complete)
            self.issue = lambda ids, indices: waiting.put(ids)
        else:
            self.issue = lambda ids, indices: respond.complete(ids)

    def flush(self) -> None: ...

    def stop(self) -> None: ...


def run_native_api(case: str, wanted: dict[str, Any], outdir: str) -> None:
    from loadgen.logs import LogSettings
    from loadgen.run import run
    from loadgen.settings import Scenario, TestSettings

    values = {**wanted, "scenario": Scenario[wanted["scenario"]]}
    run(System(case), Library(), TestSettings(**values), log=LogSettings(Path(outdir)))


def measured(outdir: str) -> dict[str, Any]:
    """What the detail log reports."""
    found: dict[str, Any] = {}
    for line in (Path(outdir) / "mlperf_log_detail.txt").read_text().splitlines():
        if '"key": "result_' in line:
            entry = json.loads(line.removeprefix(":::MLLOG "))
            found[entry["key"].removeprefix("result_")] = entry["value"]
    return found


def main(api: str, case: str, rate: float, seconds: float) -> None:
    wanted = settings_for(api, case, rate, seconds)
    with tempfile.TemporaryDirectory() as outdir:
        if api == "official":
            import mlperf_loadgen as lg
        elif api == "compat":
            import loadgen.compat as lg
        else:
            import loadgen.run  # noqa: F401 - imported before the clock starts, as the others
        before = time.perf_counter()
        if api == "native":
            run_native_api(case, wanted, outdir)
        else:
            run_official_api(lg, case, wanted, outdir)
        wall = time.perf_counter() - before
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"wall": wall, "peak_mb": peak_mb, **measured(outdir)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
