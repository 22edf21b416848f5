"""Writes all files of a finished run."""

from __future__ import annotations

import json
import sys
from typing import TextIO

import numpy as np

from loadgen.logs import LogSettings, write_accuracy, write_detail
from loadgen.outcome import RunState, result_record
from loadgen.results import Result, Verdict
from loadgen.summary import summary_text
from loadgen.trace import write_trace


def write(state: RunState, result: Result, verdict: Verdict | None, log: LogSettings) -> None:
    """The four official files and `result.json`, streamed. Raises OSError naming the file, if the disk is full."""
    detail = state.detail
    summary = summary_text(state.settings, verdict, state.sut.name, detail.warnings, detail.errors)
    columns = [part.series.indices for part in state.parts]
    indices = columns[0] if len(columns) == 1 else np.concatenate(columns)

    def fill(name: str, file: TextIO) -> None:
        if name == "summary.txt":
            file.write(summary)
        elif name == "detail.txt":
            write_detail(file, detail.entries)
        elif name == "accuracy.json":
            write_accuracy(file, state.recorder.entries(), indices)
        else:
            write_trace(file, state, log.enable_trace)

    (log.outdir / "result.json").write_text(json.dumps(result_record(result), indent=1) + "\n")
    for name in ("summary.txt", "detail.txt", "accuracy.json", "trace.json"):
        path = log.path(name)
        try:
            with path.open("w", encoding="utf-8") as file:
                fill(name, file)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: free space or choose another folder", str(path)) from error
    if log.copy_summary_to_stdout:
        sys.stdout.write(summary)
    if log.copy_detail_to_stdout:
        write_detail(sys.stdout, detail.entries)
