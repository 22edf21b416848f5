"""Where a submission has a compliance test's files."""

from __future__ import annotations

import shutil
from pathlib import Path

from loadgen.compliance.verdict import Verdict

_PERFORMANCE = ("mlperf_log_summary.txt", "mlperf_log_detail.txt")
_WITH_ANSWERS = ("TEST01", "TEST06")


def place(verdict: Verdict, run: Path, folder: Path) -> Path:
    """Copy the logs of a test's run, and write what it came to, into `folder/TESTnn`, which is made anew.

    run: the folder of its logs. Returns the test's folder.
    """
    made = folder / verdict.test
    shutil.rmtree(made, ignore_errors=True)
    logs = made / "performance" / "run_1"
    logs.mkdir(parents=True)
    for name in _PERFORMANCE:
        shutil.copyfile(run / name, logs / name)
    if verdict.test in _WITH_ANSWERS:
        (made / "accuracy").mkdir()
        shutil.copyfile(run / "mlperf_log_accuracy.json", made / "accuracy" / "mlperf_log_accuracy.json")
    for name, text in verdict.texts.items():
        (made / name).write_text(text, encoding="utf-8")
    return made
