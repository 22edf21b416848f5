"""Trees that each break one rule, and what is said of them: here, and by the official checker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen.submission.catalogue import RULES
from loadgen.submission.check import Checked, check
from loadgen.submission.official import verdicts

RECORDED = Path(__file__).with_name("official_verdicts.json")
"""What the official checker said of each tree; written by `pytest --official FOLDER`."""
ORG = "closed/Org"
OFFLINE, SERVER = (f"{ORG}/results/box/resnet/{scenario}" for scenario in ("Offline", "Server"))
RUN, ACCURACY = f"{OFFLINE}/performance/run_1", f"{OFFLINE}/accuracy"
DETAIL, SCORES = f"{RUN}/mlperf_log_detail.txt", f"{ACCURACY}/accuracy.txt"
SERVER_DETAIL = f"{SERVER}/performance/run_1/mlperf_log_detail.txt"
SYSTEM = f"{ORG}/systems/box.json"
MEASURED = f"{ORG}/measurements/box/resnet/Offline"
MEASURED_JSON = f"{MEASURED}/box_abacus_Offline.json"
AUDITS = f"{ORG}/compliance/box/resnet/Offline"
LLAMA = f"{ORG}/results/box/llama2-70b-99/Server/performance/run_1/mlperf_log_detail.txt"
LLAMA_OFFLINE = f"{ORG}/results/box/llama2-70b-99/Offline/performance/run_1/mlperf_log_detail.txt"
TEST06 = f"{ORG}/compliance/box/llama2-70b-99/Server/TEST06"
SDXL = f"{ORG}/results/box/stable-diffusion-xl/Offline/accuracy"
STREAM = f"{ORG}/results/box/resnet/MultiStream/performance/run_1/mlperf_log_detail.txt"
POWER = f"{OFFLINE}/performance/power"

Change = Callable[[Path], None]


def write(path: str, text: str | bytes) -> Change:
    """Replace a file, or add one: by a new file, because the old one is linked to the tree that was copied."""

    def change(tree: Path) -> None:
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    return change


def edit(path: str, alter: Callable[[str], str]) -> Change:
    def change(tree: Path) -> None:
        before = (tree / path).read_text()
        after = alter(before)
        assert after != before
        write(path, after)(tree)

    return change


def without(path: str) -> Change:
    def change(tree: Path) -> None:
        place = tree / path
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return change


def log(path: str, **values: Any) -> Change:
    """Change values of a detail log; None: take the key out."""

    def alter(text: str) -> str:
        for key, value in values.items():
            line = rf'^:::MLLOG {{"key": "{re.escape(key)}".*\n'
            assert re.search(line, text, re.M), key
            new = "" if value is None else rf"\g<0>"
            text = re.sub(line, new, text, flags=re.M)
            if value is not None:
                pattern = rf'("key": "{re.escape(key)}", "value": ).*?(, "time_ms")'
                text = re.sub(pattern, lambda found: f"{found[1]}{json.dumps(value)}{found[2]}", text)
        return text

    return edit(path, alter)


def described(path: str = SYSTEM, **values: Any) -> Change:
    """Change fields of a JSON object; None: take the field out."""

    def alter(text: str) -> str:
        data = {**json.loads(text), **values}
        return json.dumps({key: value for key, value in data.items() if value is not None}, indent=1)

    return edit(path, alter)


def error_line(path: str) -> Change:
    line = (
        ':::MLLOG {"key": "error_runtime", "value": "it smoked", "time_ms": 1.0, "namespace": "mlperf::logging", '
        '"event_type": "POINT_IN_TIME", "metadata": {"is_error": true, "is_warning": false, "file": "x", "line_no": 1}}'
    )
    return edit(path, lambda text: f"{text}{line}\n")


def link(path: str) -> Change:
    return lambda tree: (tree / path).symlink_to("nowhere")


def huge(path: str) -> Change:
    def change(tree: Path) -> None:
        with (tree / path).open("wb") as file:
            file.truncate((50 << 20) + 1)

    return change


def both(*changes: Change) -> Change:
    def change(tree: Path) -> None:
        for one in changes:
            one(tree)

    return change


def moved(path: str, to: str) -> Change:
    def change(tree: Path) -> None:
        (tree / to).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(tree / path, tree / to)

    return change


def copy(path: str, to: str) -> Change:
    return lambda tree: shutil.copytree(tree / path, tree / to) and None


def session(**values: Any) -> Change:
    """Change fields of both descriptions of a power session, so that they go on telling the same."""
    return both(described(f"{POWER}/client.json", **values), described(f"{POWER}/server.json", **values))


def phases_later(by_s: float) -> Change:
    """The server's clock goes ahead of the client's."""

    def alter(text: str) -> str:
        data = json.loads(text)
        data["phases"]["testing"] = [[one[0] + by_s] for one in data["phases"]["testing"]]
        return json.dumps(data)

    return edit(f"{POWER}/server.json", alter)


def noted_again(change: Change, *names: str) -> Change:
    """A change of files of a session whose checksums are noted again, so that only the change is seen."""

    def again(tree: Path) -> None:
        import hashlib

        change(tree)
        folder = tree / OFFLINE / "performance"
        for side in ("client", "server"):
            data = json.loads((folder / f"power/{side}.json").read_text())
            data["results"] |= {name: hashlib.sha1((folder / name).read_bytes()).hexdigest() for name in names}
            write(f"{POWER}/{side}.json", json.dumps(data))(tree)

    return again


def later_log(line: str, at: float) -> Change:
    """A line in PTDaemon's log, so many seconds after the load began."""
    from datetime import datetime, timedelta

    def change(tree: Path) -> None:
        begin = re.search(r'"power_begin", "value": "([^"]+)"', (tree / DETAIL).read_text())
        assert begin
        moment = datetime.strptime(begin[1], "%m-%d-%Y %H:%M:%S.%f") + timedelta(seconds=at)
        stamp = moment.strftime("%m-%d-%Y %H:%M:%S.%f")[:-3]
        edit(f"{POWER}/ptd_logs.txt", lambda text: f"{text}{stamp} {line}\n")(tree)

    return noted_again(change, "power/ptd_logs.txt")


CASES: dict[str, tuple[str, str, Change]] = {
    # name -> (tree, rule, what is broken)
    "no results": ("small", "nothing-here", both(without(f"{ORG}/results"), write(f"{ORG}/results/x.txt", "x"))),
    "a file in the root": ("small", "root-file", write("notes.txt", "x")),
    "a strange division": ("small", "unknown-division", write("clsoed/Org/x.txt", "x")),
    "a file in a division": ("small", "division-file", write("closed/notes.md", "x")),
    "a submitter without results": ("small", "no-results-folder", write("closed/Other/systems/x.txt", "x")),
    "a broken link": ("small", "broken-link", link(f"{ORG}/code/resnet/abacus/link.py")),
    "a file of 50 MB": ("small", "big-file", huge(f"{ORG}/code/resnet/abacus/weights.bin")),
    "a hidden file": ("small", "hidden-name", write(f"{ORG}/code/resnet/abacus/.cache", "x")),
    "a hidden folder": ("small", "hidden-name", write(f"{ORG}/code/resnet/.git/config", "x")),
    "a space in a name": ("small", "space-in-name", write(f"{ORG}/code/resnet/abacus/a b.py", "x")),
    "compiled Python": ("small", "pycache", write(f"{ORG}/code/resnet/__pycache__/x.pyc", "x")),
    "an empty folder": ("small", "empty-folder", lambda tree: (tree / f"{ORG}/code/resnet/none").mkdir()),
    "names that cannot be read": ("opened", "mapping-unreadable", write("open/Org/model_mapping.json", "{resnet")),
    # systems
    "no description": ("small", "system-missing", moved(SYSTEM, f"{ORG}/systems/other.txt")),
    "half a description": ("small", "system-unreadable", edit(SYSTEM, lambda text: text[:100])),
    "a description that is a list": ("small", "system-unreadable", write(SYSTEM, "[]")),
    "a status that is none": ("small", "system-status", described(status="retired")),
    "no status": ("small", "system-status", described(status=None)),
    "a category that is none": ("small", "system-type", described(system_type="desktop")),
    "a field is missing": ("small", "system-field-missing", described(cooling=None)),
    "a field is empty": ("small", "system-field-empty", described(cooling="")),
    "a field is zero": ("small", "system-field-empty", described(accelerators_per_node=0)),
    "a name that is a number": ("small", "system-field-text", described(accelerator_model_name=5)),
    "another submitter": ("small", "system-submitter", described(submitter="Other")),
    "another division": ("small", "system-division", described(division="open")),
    "a network in closed": (
        "small",
        "system-network",
        described(
            is_network="true",
            **dict.fromkeys(
                (
                    "network_type network_media network_rate nic_loadgen number_nic_loadgen net_software_stack_loadgen "
                    "network_protocol number_connections nic_sut number_nic_sut net_software_stack_sut network_topology"
                ).split(),
                "x",
            ),
        ),
    ),
    # models and scenarios
    "an unknown model": (
        "small",
        "model-unknown",
        both(
            *(
                moved(f"{ORG}/{part}/box/resnet", f"{ORG}/{part}/box/alexnet")
                for part in ("results", "measurements", "compliance")
            )
        ),
    ),
    "a model of the other category": ("llama", "model-category", described(system_type="edge")),
    "a scenario of the other category": (
        "small",
        "scenario-unknown",
        copy(SERVER, f"{ORG}/results/box/resnet/SingleStream"),
    ),
    "a scenario is missing": (
        "small",
        "scenario-missing",
        both(*(without(f"{ORG}/{part}/box/resnet/Server") for part in ("results", "measurements", "compliance"))),
    ),
    # measurements
    "no measurements": ("small", "measurements-missing", without(MEASURED)),
    "no user.conf": ("small", "measurements-file-missing", without(f"{MEASURED}/user.conf")),
    "an empty README": ("small", "measurements-file-empty", write(f"{MEASURED}/README.md", "")),
    "no implementation": ("small", "measurements-json-missing", without(MEASURED_JSON)),
    "half an implementation": ("small", "measurements-unreadable", edit(MEASURED_JSON, lambda text: text[:30])),
    "retraining is not said": ("small", "measurements-field-missing", described(MEASURED_JSON, retraining=None)),
    "retraining is empty": ("small", "measurements-field-empty", described(MEASURED_JSON, retraining="")),
    "no code": ("small", "code-missing", moved(f"{ORG}/code/resnet", f"{ORG}/code/other")),
    # accuracy
    "no score": ("small", "accuracy-missing", without(SCORES)),
    "no summary of the accuracy run": ("small", "accuracy-files", without(f"{ACCURACY}/mlperf_log_summary.txt")),
    "a score as NumPy prints it": (
        "small",
        "score-missing",
        edit(SCORES, lambda text: text.replace("76.460", "np.float64(76.46)")),
    ),
    "a score with two points": (
        "small",
        "score-unreadable",
        edit(SCORES, lambda text: text.replace("76.460", "76.4.60")),
    ),
    "a low score": ("small", "score-low", edit(SCORES, lambda text: text.replace("76.460", "75.690"))),
    "a high score": (
        "images",
        "score-high",
        edit(f"{SDXL}/accuracy.txt", lambda text: text.replace("31.74981837", "31.9")),
    ),
    "too many tokens": (
        "llama",
        "score-high",
        edit(
            f"{ORG}/results/box/llama2-70b-99/Server/accuracy/accuracy.txt",
            lambda text: text.replace("294.45", "330.5"),
        ),
    ),
    "no hash": ("small", "hash-missing", edit(SCORES, lambda text: re.sub("hash=.*\n", "", text))),
    "half a hash": ("small", "hash-form", edit(SCORES, lambda text: re.sub("(hash=.{20}).*", r"\1", text))),
    "another log's hash": ("small", "hash-wrong", write(f"{ACCURACY}/mlperf_log_accuracy.json", "[\n]\n")),
    "no accuracy log": ("small", "accuracy-log-missing", without(f"{ACCURACY}/mlperf_log_accuracy.json")),
    "a whole accuracy log": ("small", "accuracy-log-long", write(f"{ACCURACY}/mlperf_log_accuracy.json", "x" * 10241)),
    "an error in the accuracy run": ("small", "accuracy-log-errors", error_line(f"{ACCURACY}/mlperf_log_detail.txt")),
    "no detail log of the accuracy run": (
        "small",
        "accuracy-detail-missing",
        without(f"{ACCURACY}/mlperf_log_detail.txt"),
    ),
    "half a detail log of the accuracy run": (
        "small",
        "accuracy-detail-unreadable",
        edit(f"{ACCURACY}/mlperf_log_detail.txt", lambda text: text[:-100]),
    ),
    "a performance run for accuracy": (
        "small",
        "accuracy-mode",
        log(f"{ACCURACY}/mlperf_log_detail.txt", effective_test_mode="PerformanceOnly"),
    ),
    "another scenario's accuracy": (
        "small",
        "accuracy-scenario",
        log(f"{ACCURACY}/mlperf_log_detail.txt", effective_scenario="Server"),
    ),
    "a part of the data set": (
        "small",
        "accuracy-samples",
        log(f"{ACCURACY}/mlperf_log_detail.txt", qsl_reported_total_count=500),
    ),
    "an image is missing": ("images", "accuracy-images", without(f"{SDXL}/images/95.png")),
    "no captions": ("images", "accuracy-captions", without(f"{SDXL}/images/captions.txt")),
    # performance
    "no performance run": ("small", "performance-missing", moved(RUN, f"{OFFLINE}/performance/run_2")),
    "a file too many": ("small", "performance-files", write(f"{RUN}/notes.txt", "x")),
    "half a log": ("small", "log-unreadable", edit(DETAIL, lambda text: text[:-100])),
    "no scenario in the log": ("small", "log-key-missing", log(DETAIL, effective_scenario=None)),
    "no seed in the log": ("small", "seed", log(DETAIL, effective_qsl_rng_seed=None)),
    "no count in the log": ("small", "log-key-missing", log(DETAIL, effective_performance_sample_count="many")),
    "an INVALID result": ("small", "result-invalid", log(DETAIL, result_validity="INVALID")),
    "nothing a second": ("small", "result-zero", log(DETAIL, result_samples_per_second=0.0)),
    "an error in the log": ("small", "log-errors", error_line(DETAIL)),
    "few samples loaded": ("small", "sample-count", log(DETAIL, effective_performance_sample_count=1023)),
    "another seed": ("small", "seed", log(DETAIL, effective_schedule_rng_seed=5)),
    "early stopping is not met": ("small", "early-stopping", log(SERVER_DETAIL, early_stopping_met=False)),
    "a slack target": ("small", "target-latency", log(SERVER_DETAIL, effective_target_latency_ns=15_000_001)),
    "no query": ("small", "min-queries", log(DETAIL, effective_min_query_count=0)),
    "a small query": ("small", "offline-samples", log(DETAIL, effective_samples_per_query=24575)),
    "a second's run": ("small", "min-duration", log(DETAIL, effective_min_duration_ms=1000)),
    "tokens are not timed": ("llama", "token-latencies-off", log(LLAMA, requested_use_token_latencies=False)),
    "a slow first token": (
        "llama",
        "token-latency",
        log(LLAMA, **{"result_first_token_99.00_percentile_latency_ns": 2_000_000_000}),
    ),
    "slack token limits": ("llama", "token-limits", log(LLAMA, requested_server_ttft_latency=3_000_000_000)),
    "tokens, INVALID": ("llama", "result-invalid", log(LLAMA, result_validity="INVALID")),
    "tokens, INVALID Offline": ("llama", "result-invalid", log(LLAMA_OFFLINE, result_validity="INVALID")),
    "Server from Offline": (
        "small",
        "scenario-differs",
        both(without(f"{SERVER}/performance"), copy(f"{OFFLINE}/performance", f"{SERVER}/performance")),
    ),
    "too short to infer from": ("edge", "inferred-no-estimate", log(STREAM, early_stopping_latency_ms=0)),
    "an accuracy run for performance": ("small", "performance-mode", log(DETAIL, effective_test_mode="AccuracyOnly")),
    "another percentile": ("small", "percentile", log(SERVER_DETAIL, effective_target_latency_percentile=0.9)),
    "queries of one": ("streams", "multistream-size", log(STREAM, effective_samples_per_query=1)),
    "always the same sample": ("small", "issue-mode", log(DETAIL, effective_performance_issue_same=True)),
    # compliance
    "no compliance": ("small", "compliance-missing", without(AUDITS)),
    "no TEST05": ("small", "compliance-test-missing", without(f"{AUDITS}/TEST05")),
    "no verdict": ("small", "compliance-verdict-missing", without(f"{AUDITS}/TEST04/verify_performance.txt")),
    "a test that failed": (
        "small",
        "compliance-performance",
        write(f"{AUDITS}/TEST04/verify_performance.txt", "TEST FAIL\n"),
    ),
    "a test without its run": ("small", "compliance-run-missing", without(f"{AUDITS}/TEST04/performance")),
    "a test with a file too many": ("small", "compliance-files", write(f"{AUDITS}/TEST04/performance/run_1/x", "x")),
    "the first test's log is cut off": (
        "small",
        "compliance-log",
        edit(f"{AUDITS}/TEST01/performance/run_1/mlperf_log_detail.txt", lambda text: text[:-100]),
    ),
    "a later test's log is cut off": (
        "small",
        "compliance-log",
        edit(f"{AUDITS}/TEST05/performance/run_1/mlperf_log_detail.txt", lambda text: text[:-100]),
    ),
    "a test that is INVALID": (
        "small",
        "result-invalid",
        log(f"{AUDITS}/TEST04/performance/run_1/mlperf_log_detail.txt", result_validity="INVALID"),
    ),
    "TEST05 with the usual seeds": (
        "small",
        "seed",
        log(f"{AUDITS}/TEST05/performance/run_1/mlperf_log_detail.txt", effective_qsl_rng_seed=13281865557512327830),
    ),
    "no verdict on the answers": (
        "small",
        "compliance-answers-missing",
        without(f"{AUDITS}/TEST01/verify_accuracy.txt"),
    ),
    "TEST01 without its answers": ("small", "compliance-accuracy-missing", without(f"{AUDITS}/TEST01/accuracy")),
    "TEST01 with a file too few": (
        "small",
        "compliance-accuracy-files",
        without(f"{AUDITS}/TEST01/accuracy/accuracy.txt"),
    ),
    "answers differ, and no scores": (
        "small",
        "compliance-accuracy-files",
        write(f"{AUDITS}/TEST01/verify_accuracy.txt", "TEST FAIL\n"),
    ),
    "scores that differ": (
        "small",
        "compliance-delta",
        both(
            write(f"{AUDITS}/TEST01/verify_accuracy.txt", "TEST FAIL\n"),
            write(f"{AUDITS}/TEST01/accuracy/baseline_accuracy.txt", "accuracy=76.460%\n"),
            write(f"{AUDITS}/TEST01/accuracy/compliance_accuracy.txt", "accuracy=75.000%\n"),
        ),
    ),
    "TEST06 saw another first token": (
        "llama",
        "compliance-tokens",
        edit(f"{TEST06}/verify_accuracy.txt", lambda text: text.replace("First token check pass: True", "... False")),
    ),
    "16 % faster with one sample": (
        "streams",
        "compliance-rate",
        log(
            f"{ORG}/compliance/box/resnet/SingleStream/TEST04/performance/run_1/mlperf_log_detail.txt",
            early_stopping_latency_ss=688_000_000,
        ),
    ),
    "TEST04 with many samples": (
        "small",
        "compliance-settings",
        log(f"{AUDITS}/TEST04/performance/run_1/mlperf_log_detail.txt", effective_performance_issue_same=False),
    ),
    # power
    "no meter's log of ranging": ("powered", "power-files", write(f"{POWER}/notes.txt", "x")),
    "no power settings": ("powered", "power-settings", without(f"{MEASURED}/power_settings.md")),
    "no begin of the load": (
        "powered",
        "power-window",
        noted_again(log(DETAIL, power_begin=None), "run_1/mlperf_log_detail.txt"),
    ),
    "a meter that saw nothing": (
        "powered",
        "power-samples",
        noted_again(edit(f"{RUN}/spl.txt", lambda text: text.replace("101.0", "0.0")), "run_1/spl.txt"),
    ),
    "half a session": ("powered", "power-session", edit(f"{POWER}/client.json", lambda text: text[:100])),
    "another client": ("powered", "power-sources", described(f"{POWER}/client.json", sources={"client.py": "0" * 40})),
    "another meter": (
        "powered",
        "power-meter",
        edit(f"{POWER}/server.json", lambda text: text.replace("YokogawaWT310,", "Multimeter,")),
    ),
    "another server's session": (
        "powered",
        "power-uuid",
        described(f"{POWER}/server.json", uuid={"client": "0" * 32, "server": "f" * 32}),
    ),
    "another session's name": ("powered", "power-uuid", described(f"{POWER}/client.json", session_name="other")),
    "clocks a second apart": ("powered", "power-phases", phases_later(1.0)),
    "a dip": (
        "powered",
        "power-dip",
        noted_again(edit(f"{RUN}/spl.txt", lambda text: text.replace("101.0", "94.0")), "run_1/spl.txt"),
    ),
    "a message that one side lacks": ("powered", "power-messages", described(f"{POWER}/client.json", messages=[])),
    "a changed file": ("powered", "power-checksums", write(f"{POWER}/client.log", "x")),
    "an error of the meter": ("powered", "power-log", later_log("ERROR: it smoked", 100.0)),
    "an uncertain meter": (
        "powered",
        "power-log",
        later_log("WARNING: Uncertainty 1.50%, which is above 1.00% limit for the last sample!", 100.0),
    ),
    "a strange device": (
        "powered",
        "power-device",
        described(f"{POWER}/server.json", ptd_config={"device_type": 5, "command": [], "channel": None}),
    ),
    "a server in debug mode": ("powered", "power-debug", described(f"{POWER}/server.json", debug=True)),
    # warnings
    "a field that nobody knows": ("small", "system-field-unknown", described(colour="red")),
    "a description without results": ("small", "system-unused", write(f"{ORG}/systems/other.json", "{}")),
    "a strange folder": ("small", "unknown-folder", write(f"{ORG}/result/x.txt", "x")),
    "a warning of the meter": ("powered", "power-warning", later_log("WARNING: it is warm", 100.0)),
}
NETWORKED = "sut-name"
"""The one rule whose tree is made by its own test: it is of another division."""


@pytest.fixture
def broken(request: pytest.FixtureRequest, copied: Callable[[Path], Path]) -> Path:
    tree, _, change = CASES[request.param]
    copy = copied(request.getfixturevalue(tree))
    change(copy)
    return copy


@pytest.mark.parametrize(("broken", "name"), [(name, name) for name in CASES], indirect=["broken"], ids=list(CASES))
def test_one_defect_is_one_finding(broken: Path, name: str, request: pytest.FixtureRequest) -> None:
    checked = check(broken)
    assert {finding.rule for finding in checked.findings} == {CASES[name][1]}
    assert checked.passes is RULES[CASES[name][1]].is_warning
    if official := request.config.getoption("--official", default=None):
        record(name, officially(official, broken))
    assert predicted(checked) == json.loads(RECORDED.read_text())[name]


@pytest.mark.parametrize("tree", ["small", "edge", "streams", "llama", "images", "opened", "powered"])
def test_a_whole_tree_passes_both(tree: str, request: pytest.FixtureRequest) -> None:
    checked = check(request.getfixturevalue(tree))
    assert checked.findings == []
    if official := request.config.getoption("--official", default=None):
        record(f"whole: {tree}", officially(official, request.getfixturevalue(tree)))
    assert predicted(checked) == json.loads(RECORDED.read_text())[f"whole: {tree}"]
    assert predicted(checked)["passes"] is True


def test_every_rule_is_broken_once() -> None:
    assert {rule for _, rule, _ in CASES.values()} | {NETWORKED} == set(RULES)
    assert len(CASES) > 100


def test_a_system_over_a_network_says_so_in_its_name(
    small: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(small / "closed", tree / "network")
    fields = "network_type network_media network_rate nic_loadgen number_nic_loadgen net_software_stack_loadgen"
    fields += " network_protocol number_connections nic_sut number_nic_sut net_software_stack_sut network_topology"
    described(
        "network/Org/systems/box.json", division="network", is_network="true", **dict.fromkeys(fields.split(), "x")
    )(tree)
    assert {finding.rule for finding in check(tree).findings} == {NETWORKED}
    for file in tree.rglob("performance/run_1/mlperf_log_detail.txt"):
        log(str(file.relative_to(tree)), sut_name="Network SUT, Abacus")(tree)
    assert check(tree).findings == []


def predicted(checked: Checked) -> dict[str, Any]:
    """Ours of the official verdicts, in the form that the official ones are recorded in."""
    said = verdicts(checked)
    return {"passes": said.passes, "stops": bool(said.stops), "results": {} if said.stops else said.results}


def officially(tools: Path, tree: Path) -> dict[str, Any]:
    """What the official checker says of a tree: its own words, parsed."""
    table = tree.parent / "official.csv"
    command = [
        sys.executable,
        str(tools.absolute() / "submission_checker.py"),
        "--input",
        str(tree),
        "--csv",
        str(table),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tools, env={**os.environ, "TZ": "UTC"}
    )
    said = re.findall(r"(?:INFO|ERROR)\] (Results|NoResults) (\S+)(?: .*)?$", done.stderr, re.M)
    if "SUMMARY" not in done.stderr:
        return {"passes": False, "stops": True, "results": {}}
    results = {path: kind == "Results" for kind, path in said}
    return {"passes": done.returncode == 0, "stops": False, "results": dict(sorted(results.items()))}


def record(name: str, said: dict[str, Any]) -> None:
    known = json.loads(RECORDED.read_text()) if RECORDED.is_file() else {}
    RECORDED.write_text(json.dumps({**known, name: said}, indent=1, sort_keys=True) + "\n")
