"""Trees that break several rules, or none, where the official checker does something that its rules do not say.

Name -> (the tree that is copied, the rules that are found, what is done to the copy).
"""

from __future__ import annotations

import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

_CHANGES = runpy.run_path(str(Path(__file__).with_name("changes.py")))
write, edit, log, described = (_CHANGES[name] for name in "write edit log described".split())
both, copy, moved, without = (_CHANGES[name] for name in "both copy moved without".split())
later_log, noted_again = (_CHANGES[name] for name in "later_log noted_again".split())
ORG, OFFLINE, SERVER, SCORES = (_CHANGES[name] for name in "ORG OFFLINE SERVER SCORES".split())
DETAIL, SYSTEM, AUDITS, RUN = (_CHANGES[name] for name in "DETAIL SYSTEM AUDITS RUN".split())
OPEN = "open/Org/results/box/resnet/Offline"
PARTS = ("results", "measurements", "compliance")


def renamed(model: str, division: str = "closed") -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        for part in (*PARTS, "code"):
            above = tree / division / "Org" / part / ("" if part == "code" else "box")
            if (above / "resnet").exists():
                shutil.move(above / "resnet", above / model)

    return change


def delta(baseline: str, compliance: str) -> Callable[[Path], None]:
    """TEST01's answers differ, and these are the scores of both runs."""
    folder = f"{AUDITS}/TEST01"
    return both(
        write(f"{folder}/verify_accuracy.txt", "TEST FAIL\n"),
        write(f"{folder}/accuracy/baseline_accuracy.txt", baseline),
        write(f"{folder}/accuracy/compliance_accuracy.txt", compliance),
    )


def second_system(tree: Path) -> None:
    """In the same division; its description is missing."""
    for part in PARTS:
        shutil.copytree(tree / f"{ORG}/{part}/box", tree / f"{ORG}/{part}/other")


def shorter(tree: Path) -> None:
    """The test took a third of the ranging run's time, and less power."""
    text = (tree / DETAIL).read_text()
    begin = re.search(r'"power_begin", "value": "([^"]+)"', text)
    assert begin
    end = begin[1][:14] + f"{int(begin[1][14:16]) + 3:02d}" + begin[1][16:]
    write(DETAIL, re.sub(r'("power_end", "value": ")[^"]+', rf"\g<1>{end}", text))(tree)
    edit(f"{RUN}/spl.txt", lambda said: said.replace("101.0", "90.0"))(tree)


CASES: dict[str, tuple[str, set[str], Callable[[Path], None]]] = {
    "lower case": (
        "small",
        set(),
        both(*(moved(f"{ORG}/{part}/box/resnet/Offline", f"{ORG}/{part}/box/resnet/offline") for part in PARTS)),
    ),
    "another name of the model": ("small", set(), renamed("resnet50")),
    "a name that is guessed": ("small", set(), renamed("my-efficientnet-b0")),
    "an own name in open": (
        "opened",
        set(),
        both(renamed("my-net", "open"), write("open/Org/model_mapping.json", '{"my-net": "resnet"}')),
    ),
    "an own name in closed": (
        "small",
        {"model-unknown", "unknown-folder"},
        both(renamed("my-net"), write(f"{ORG}/names/model_mapping.json", '{"my-net": "resnet"}')),
    ),
    "an unknown model in open": ("opened", {"model-unknown"}, renamed("alexnet", "open")),
    "a low score in open": (
        "opened",
        set(),
        edit(f"{OPEN}/accuracy/accuracy.txt", lambda text: text.replace("76.460", "10.000")),
    ),
    "no score in open": ("opened", {"accuracy-missing"}, without(f"{OPEN}/accuracy/accuracy.txt")),
    "half a log in open": (
        "opened",
        {"accuracy-detail-unreadable"},
        edit(f"{OPEN}/accuracy/mlperf_log_detail.txt", lambda text: text[:-100]),
    ),
    "a score twice, once low": ("small", {"score-low"}, edit(SCORES, lambda text: f"accuracy=10.000%\n{text}")),
    "a score after the hash": ("small", {"score-low"}, edit(SCORES, lambda text: f"{text}accuracy=10.000%\n")),
    "answers differ, scores agree": ("small", set(), delta("accuracy=76.460%\n", "accuracy=76.000%\n")),
    "answers differ, a score is no number": (
        "small",
        {"compliance-delta"},
        delta("accuracy=76.460%\n", "accuracy=76.4.6%\n"),
    ),
    "answers differ, a score is missing": ("small", {"compliance-delta"}, delta("accuracy=76.460%\n", "none\n")),
    "no first test, and the next log is cut off": (
        "small",
        {"compliance-test-missing", "compliance-log"},
        both(
            without(f"{AUDITS}/TEST01"),
            edit(f"{AUDITS}/TEST04/performance/run_1/mlperf_log_detail.txt", lambda text: text[:-100]),
        ),
    ),
    "a test failed, and its log is cut off": (
        "small",
        {"compliance-performance", "compliance-log"},
        both(
            write(f"{AUDITS}/TEST01/verify_performance.txt", "TEST FAIL\n"),
            edit(f"{AUDITS}/TEST01/performance/run_1/mlperf_log_detail.txt", lambda text: text[:-100]),
        ),
    ),
    "a second system without a description": ("small", {"system-missing", "measurements-json-missing"}, second_system),
    "both categories": ("small", {"scenario-missing"}, described(system_type="datacenter,edge")),
    "a number for a name, and no result": (
        "small",
        {"system-field-text", "result-invalid"},
        both(
            described(framework=5),
            log(DETAIL, result_validity="INVALID"),
            log(f"{SERVER}/performance/run_1/mlperf_log_detail.txt", result_validity="INVALID"),
        ),
    ),
    "a file in the root, and a bad system": (
        "small",
        {"root-file", "system-status"},
        both(write("notes.txt", "x"), described(status="old")),
    ),
    "a hidden file, and a bad system": (
        "small",
        {"hidden-name", "system-status"},
        both(write(f"{ORG}/code/resnet/.x", "x"), described(status="old")),
    ),
    "an empty submission": (
        "small",
        {"nothing-here", "no-results-folder"},
        both(*(without(f"{ORG}/{part}") for part in PARTS), described(status="old")),
    ),
    "a dip that a short test hides": (
        "powered",
        {"power-dip", "power-warning"},
        noted_again(shorter, "run_1/mlperf_log_detail.txt", "run_1/spl.txt"),
    ),
    "an error after another that is tolerated": (
        "powered",
        {"power-log", "power-warning"},
        both(later_log("ERROR: USB.", 100.0), later_log("ERROR: it smoked", 700.0)),
    ),
    "an error after a warning that is not seen": (
        "powered",
        {"power-log", "power-warning"},
        both(later_log("WARNING: it is warm", 100.0), later_log("ERROR: it smoked", 700.0)),
    ),
    "an error that is tolerated": ("powered", {"power-warning"}, later_log("ERROR: USB.", 100.0)),
    "a file beside the logs that is ignored": ("small", set(), write(f"{RUN}/mlperf_log_trace.json", "{}")),
    "a result of less than nothing": ("small", {"result-zero"}, log(DETAIL, result_samples_per_second=-5.0)),
    "a code folder that another file names": (
        "small",
        set(),
        both(moved(f"{ORG}/code/resnet", f"{ORG}/code/vision"), write(f"{ORG}/code/resnet", "vision\n")),
    ),
    "no implementation's name": (
        "small",
        set(),
        both(
            *(
                moved(
                    f"{ORG}/measurements/box/resnet/{one}/box_abacus_{one}.json",
                    f"{ORG}/measurements/box/resnet/{one}/box.json",
                )
                for one in ("Offline", "Server")
            )
        ),
    ),
}
