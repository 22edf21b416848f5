"""Trees that each break one rule: name -> (the tree that is copied, the rule, what is done to the copy)."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path

_CHANGES = runpy.run_path(str(Path(__file__).with_name("changes.py")))
write = _CHANGES["write"]
edit = _CHANGES["edit"]
without = _CHANGES["without"]
log = _CHANGES["log"]
described = _CHANGES["described"]
error_line = _CHANGES["error_line"]
link = _CHANGES["link"]
huge = _CHANGES["huge"]
both = _CHANGES["both"]
moved = _CHANGES["moved"]
copy = _CHANGES["copy"]
session = _CHANGES["session"]
phases_later = _CHANGES["phases_later"]
noted_again = _CHANGES["noted_again"]
later_log = _CHANGES["later_log"]
ORG = _CHANGES["ORG"]
OFFLINE = _CHANGES["OFFLINE"]
SERVER = _CHANGES["SERVER"]
RUN = _CHANGES["RUN"]
ACCURACY = _CHANGES["ACCURACY"]
DETAIL = _CHANGES["DETAIL"]
SCORES = _CHANGES["SCORES"]
SERVER_DETAIL = _CHANGES["SERVER_DETAIL"]
SYSTEM = _CHANGES["SYSTEM"]
MEASURED = _CHANGES["MEASURED"]
MEASURED_JSON = _CHANGES["MEASURED_JSON"]
AUDITS = _CHANGES["AUDITS"]
LLAMA = _CHANGES["LLAMA"]
LLAMA_OFFLINE = _CHANGES["LLAMA_OFFLINE"]
TEST06 = _CHANGES["TEST06"]
SDXL = _CHANGES["SDXL"]
STREAM = _CHANGES["STREAM"]
POWER = _CHANGES["POWER"]

CASES: dict[str, tuple[str, str, Callable[[Path], None]]] = {
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
