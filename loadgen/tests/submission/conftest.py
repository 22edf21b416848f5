"""Trees of submissions, built from logs that our LoadGen wrote for real, ten minutes at a time on a fake clock.

`--official FOLDER` holds the official checker of tag v4.0 (tools/submission) beside ours, and records its verdicts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from loadgen.conf import Text, settings_from
from loadgen.contracts import Ints, Responder
from loadgen.harness.plan import Layered
from loadgen.harness.report import record
from loadgen.logs import LogSettings
from loadgen.results import Result
from loadgen.rules import Accuracy, ModelRules, Round, load_round
from loadgen.run import run
from loadgen.settings import Mode, Scenario, TestSettings
from loadgen.submission.build import Order, build
from loadgen.submission.checks.meter import load_span
from loadgen.submission.checks.ptd import power_rules
from loadgen.submission.describe import complete, found_by
from loadgen.submission.reading import read_log
from loadgen.submission.requirements import Requirements
from loadgen.submission.runs import read_run
from loadgen.testing import FakeClock, FakeLibrary

V4_0 = load_round("v4.0")
LATENCY_NS = {"SingleStream": 8 * 10**8, "MultiStream": 10**9, "Server": 10**6, "Offline": 601 * 10**9}
"""Few queries fill ten minutes."""
PACE: Mapping[str, Mapping[str, Any]] = {
    "SingleStream": {"single_stream_expected_latency_ns": 8e8},
    "MultiStream": {"multi_stream_expected_latency_ns": 1e9},
    "Server": {"server_target_qps": 2.0},
    "Offline": {"offline_expected_qps": 1.0},
}
SYSTEM = {
    "host_processor_model_name": "Abacus 9",
    "host_processors_per_node": "2",
    "host_processor_core_count": "64",
    "host_memory_capacity": "512 GB",
    "host_storage_capacity": "4000 GB",
    "host_storage_type": "NVMe SSD",
    "operating_system": "Debian 12",
    "accelerators_per_node": "0",
    "accelerator_model_name": "N/A",
    "accelerator_memory_capacity": "N/A",
    "accelerator_host_interconnect": "N/A",
    "accelerator_memory_configuration": "N/A",
    "accelerator_interconnect": "N/A",
}
TOLD = {
    "status": "available",
    "system_name": "Abacus server",
    "host_memory_configuration": "16x 32 GB",
    "host_networking": "Ethernet",
    "host_networking_topology": "N/A",
    "host_network_card_count": "1",
    "cooling": "air",
}
WEIGHTS = {
    "input_data_types": "fp32",
    "retraining": "no",
    "starting_weights_filename": "weights.bin",
    "weight_data_types": "fp32",
    "weight_transformations": "none",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--official", type=Path, help="tools/submission of the official suite's tag v4.0")
    parser.addoption("--checker-6", type=Path, help="tools/submission of the official suite's main branch")


@dataclass
class Answering:
    """Answers each sample with four bytes, and with tokens where they are asked for, so long after it was issued."""

    clock: FakeClock
    latency_ns: int
    tokens: bool
    name: str = "a system of the tests"

    def start(self, respond: Responder) -> None:
        self.respond = respond

    def issue(self, ids: Ints, indices: Ints) -> None:
        some = [ids] if isinstance(ids, int) else [int(one) for one in ids]
        if self.tokens:
            self.clock.call_at(self.clock.now_ns() + self.latency_ns // 2, lambda: self._first(some))
        self.clock.call_at(self.clock.now_ns() + self.latency_ns, lambda: self._answer(some))

    def _first(self, ids: Sequence[int]) -> None:
        for one in ids:
            self.respond.first_token(one, b"1234")

    def _answer(self, ids: Sequence[int]) -> None:
        n_tokens = [8] * len(ids) if self.tokens else None
        self.respond.complete(list(ids), b"1234" * len(ids), list(range(0, 4 * len(ids) + 1, 4)), n_tokens)

    def flush(self) -> None: ...

    def stop(self) -> None: ...


def one_test(
    rules: ModelRules,
    scenario: str,
    mode: Mode,
    folder: Path,
    audit: str = "",
    round_: Round = V4_0,
    **changes: Any,
) -> tuple[Result, Layered]:
    """A test by the rules, its logs in a folder; changes: settings that replace them."""
    chosen, clock = Scenario[scenario], FakeClock()
    base = round_.settings(rules.model, chosen, TestSettings(scenario=chosen, mode=mode, revision=round_.revision))
    layers = Layered(base, {}).then("command line", replace(base, **{**PACE[scenario], **changes}))
    settings = layers.settings
    if audit:
        text = Text(audit, round_.audit_text(audit, rules.model))
        settings = replace(settings_from([text], "*", chosen, settings), mode=mode)
    library = FakeLibrary(rules.dataset_size, rules.performance_sample_count, "numbers of the tests")
    latency_ns = LATENCY_NS[scenario] if mode is not Mode.AccuracyOnly else 10**6
    sut = Answering(clock, latency_ns, settings.use_token_latencies)
    result = run(sut, library, settings, log=LogSettings(folder), clock=clock)
    (folder / "mlperf_log_trace.json").unlink()
    return result, layers


def good_scores(rules: ModelRules) -> dict[str, float]:
    """Whatever the accuracy line wants; judged scores are the reference's."""
    others = ("good total queries exact_match kidney tumor wer rougeLsum gen_len gen_num gen_tok_len accuracy").split()
    return {**dict.fromkeys(others, 1.5), **rules.targets}


def run_folder(
    folder: Path, model: str, scenarios: Sequence[str], round_: Round = V4_0, audits: bool = True, **changes: Any
) -> Path:
    """What `run` leaves: logs, scores, `results.json`, and what `comply` places beside them."""
    rules, entries = round_.models[model], []
    for scenario in scenarios:
        for mode, kind in ((Mode.PerformanceOnly, "performance"), (Mode.AccuracyOnly, "accuracy")):
            place = folder / scenario / kind
            result, layers = one_test(rules, scenario, mode, place, round_=round_, **changes)
            judged: tuple[Accuracy, ...] = ()
            if kind == "accuracy":
                (place / "accuracy.txt").write_text(rules.write_accuracy(good_scores(rules)) + "\n")
                judged = tuple(Accuracy(rules.targets, rules.limits(one), one) for one in rules.ratios)
                _images(rules, place / "images")
            entries.append(record.entry(result, judged, layers, f"{scenario}/{kind}"))
        for audit in rules.compliance if audits else ():
            _audited(rules, scenario, audit, folder / "compliance" / scenario / audit, round_)
    data = {
        "schema": record.SCHEMA,
        "benchmark": model,
        "model": model,
        "profile": "full",
        "shortfalls": [],
        "machine": {"python": "3.11.7", "numpy": "2.4.6"},
        "system": SYSTEM,
        "options": {"backend": "abacus", "rules": round_.name, "abacus version": "3.1", "workers": "1"},
        "arguments": ["run", "--profile", "full"],
        "tests": entries,
    }
    (folder / "results.json").write_text(json.dumps(data))
    return folder


def _images(rules: ModelRules, folder: Path) -> None:
    if rules.images:
        folder.mkdir()
        for number in rules.images:
            (folder / f"{number}.png").write_bytes(b"\x89PNG")
        (folder / "captions.txt").write_text("a cat\n")


def _audited(rules: ModelRules, scenario: str, audit: str, folder: Path, round_: Round) -> None:
    one_test(rules, scenario, Mode.PerformanceOnly, folder / "performance" / "run_1", audit, round_)
    (folder / "performance" / "run_1" / "result.json").unlink()
    (folder / "verify_performance.txt").write_text("TEST PASS\n")
    if audit == "TEST01":
        log = folder / "performance" / "run_1" / "mlperf_log_accuracy.json"
        (folder / "accuracy").mkdir()
        shutil.copyfile(log, folder / "accuracy" / log.name)
        (folder / "accuracy" / "accuracy.txt").write_text(rules.write_accuracy(good_scores(rules)) + "\n")
        (folder / "verify_accuracy.txt").write_text("TEST PASS\n")
    if audit == "TEST06":
        lines = ("First token check pass: True", "EOS check pass: True", "Sample length check pass: True")
        (folder / "verify_accuracy.txt").write_text("\n".join(lines) + "\n")


def built(
    output: Path, runs: Sequence[Path], kind: str, system: str, code: Path, division: str = "closed", **changes: Any
) -> Path:
    """A tree from run folders."""
    read = [read_run(folder) for folder in runs]
    requirements = Requirements(read[0].round)
    description = complete(
        requirements, {**TOLD, "division": division, "submitter": "Org", "system_type": kind, **changes}, found_by(read)
    )
    build(Order(output, division, "Org", system, description, "abacus", WEIGHTS, code), read)
    return output


def power_session(ran: Path, scenario: str) -> None:
    """Put beside a performance test what a session of a power meter leaves."""
    place, rules = ran / scenario / "performance", V4_0.models["resnet50"]
    one_test(rules, scenario, Mode.PerformanceOnly, place / "ranging")
    for folder, begin in ((place / "ranging", 1_699_990_000.25), (place, 1_700_000_000.25)):
        ran_at(folder / "mlperf_log_detail.txt", begin, begin + 601)
    (place / "ranging" / "mlperf_log_accuracy.json").unlink()
    (place / "ranging" / "result.json").unlink()
    phases, marks = {}, []
    for name, run_, watts in (("ranging", place / "ranging", 100.0), ("testing", place, 101.0)):
        begin, end = (moment.timestamp() for moment in load_span(read_log(run_ / "mlperf_log_detail.txt")) or ())
        phases[name] = [[begin - 20], [begin - 10], [end + 10], [end + 20]]
        marks += [(begin - 10, f": Go with mark 'session_{name}'"), (end + 10, ": Completed test")]
        lines = (
            f"Time,{stamp(at)},Watts,{watts},Volts,230,Amps,1,PF,0.98,Mark,x" for at in range(int(begin), int(end))
        )
        (run_ / "spl.txt").write_text("\n".join(lines) + "\n")
    (place / "power").mkdir()
    log = [(marks[0][0] - 5, " Uncertainty checking for YokogawaWT310 is activated"), *marks]
    (place / "power" / "ptd_logs.txt").write_text("".join(f"{stamp(at)}{text}\n" for at, text in log))
    for name in ("client.log", "server.log"):
        (place / "power" / name).write_text("a log\n")
    results = {}
    for run_, folder in (("ranging", place / "ranging"), ("run_1", place)):
        for name in ("mlperf_log_detail.txt", "mlperf_log_summary.txt", "spl.txt"):
            results[f"{run_}/{name}"] = hashlib.sha1((folder / name).read_bytes()).hexdigest()
    for name in ("client.log", "ptd_logs.txt", "server.log"):
        results[f"power/{name}"] = hashlib.sha1((place / "power" / name).read_bytes()).hexdigest()
    both: dict[str, Any] = {"version": 1, "timezone": 0, "modules": {}, "sources": power_rules()["sources"][0]}
    both |= {"uuid": {name: str(uuid.UUID(int=number)) for number, name in enumerate(("client", "server"))}}
    greeting = {"cmd": "mlcommons/power client v3", "reply": "mlcommons/power server v3"}
    both |= {"messages": [greeting, {"cmd": "time", "reply": "1"}], "session_name": "session", "phases": phases}
    both |= {"results": results}
    answers = power_rules()["replies"]
    said = [("Hello", "Hello, PTDaemon here!"), ("Identify", "YokogawaWT310,version=1.10.0-abc"), ("RR", "R,1,0,1,0")]
    said += [("SR,A,Auto", answers["SR,A"])] * 3 + [("SR,V,Auto", answers["SR,V"])] * 3
    said += [("Go,1000,0,session", answers["Go,1000,"]), ("Stop", answers["Stop"])]
    server = {"ptd_messages": [{"cmd": cmd, "reply": reply} for cmd, reply in said], "debug": False}
    server |= {"ptd_config": {"device_type": 49, "command": ["ptd"], "channel": None}}
    (place / "power" / "client.json").write_text(json.dumps(both))
    (place / "power" / "server.json").write_text(json.dumps({**both, **server}))


def ran_at(log: Path, begin: float, end: float) -> None:
    """Let a log say that its load ran then: the fake clock's ten minutes take no time."""
    text = log.read_text()
    for key, at in (("power_begin", begin), ("power_end", end)):
        text = re.sub(rf'("key": "{key}", "value": ")[^"]*', rf"\g<1>{stamp(at)}", text)
    log.write_text(text)


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%m-%d-%Y %H:%M:%S.%f")[:-3]


@pytest.fixture(scope="session")
def powered(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Path:
    """ResNet in a datacenter, its Offline measured by a power meter."""
    place = tmp_path_factory.mktemp("powered")
    ran = run_folder(place / "run", "resnet50", ["Server", "Offline"])
    power_session(ran, "Offline")
    tree = built(place / "tree", [ran], "datacenter", "box", code)
    for name in ("analyzer_table.md", "power_settings.md"):
        (tree / "closed/Org/measurements/box/resnet/Offline" / name).write_text("as it was\n")
    return tree


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "main.py").write_text("print('hello')\n")
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Path:
    """ResNet in a datacenter, its tests too: the smallest whole submission."""
    place = tmp_path_factory.mktemp("small")
    return built(
        place / "tree", [run_folder(place / "run", "resnet50", ["Server", "Offline"])], "datacenter", "box", code
    )


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Path:
    """ResNet on edge, its MultiStream and Offline inferred from SingleStream."""
    place = tmp_path_factory.mktemp("edge")
    return built(place / "tree", [run_folder(place / "run", "resnet50", ["SingleStream"])], "edge", "box", code)


@pytest.fixture(scope="session")
def streams(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Path:
    """ResNet on edge, every scenario run."""
    place, scenarios = tmp_path_factory.mktemp("streams"), ["SingleStream", "MultiStream", "Offline"]
    return built(place / "tree", [run_folder(place / "run", "resnet50", scenarios)], "edge", "box", code)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Path:
    place = tmp_path_factory.mktemp("llama")
    ran = run_folder(place / "run", "llama2-70b", ["Server", "Offline"])
    return built(place / "tree", [ran], "datacenter", "box", code)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Path:
    place = tmp_path_factory.mktemp("images")
    ran = run_folder(place / "run", "stable-diffusion-xl", ["Server", "Offline"])
    return built(place / "tree", [ran], "datacenter", "box", code)


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Path:
    """In the open division, without compliance tests."""
    place = tmp_path_factory.mktemp("opened")
    ran = run_folder(place / "run", "resnet50", ["Offline"])
    return built(place / "tree", [ran], "datacenter", "box", code, division="open")


@pytest.fixture(scope="session")
def make() -> ModuleType:
    """The functions of this file."""
    return sys.modules[__name__]


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a tree by links, so that a test may replace files of it (never write into one)."""

    def copy(tree: Path) -> Path:
        return Path(shutil.copytree(tree, tmp_path / "tree", copy_function=os.link))

    return copy
