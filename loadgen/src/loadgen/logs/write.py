"""Writes all files of a finished run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

from loadgen.contracts import InputError
from loadgen.logs.accuracy import write_accuracy
from loadgen.logs.detail import write_detail
from loadgen.logs.files import LogSettings
from loadgen.logs.result import result_record
from loadgen.logs.summary import summary_text
from loadgen.logs.trace import write_trace
from loadgen.results import Result, Verdict
from loadgen.state import RunState


def write(state: RunState, result: Result, verdict: Verdict | None, log: LogSettings) -> None:
    """`result.json` and the four official files, streamed. A full disk is an InputError that names the file."""
    detail = state.job.detail
    summary = summary_text(state.settings, verdict, state.job.sut.name, detail.warnings, detail.errors)
    columns = [part.series.indices for part in state.parts]
    indices = columns[0] if len(columns) == 1 else np.concatenate(columns)
    record = json.dumps(result_record(result), indent=1)
    _again(log.outdir)
    _fill(log.outdir / "result.json", lambda file: file.write(f"{record}\n"))
    _fill(log.path("summary.txt"), lambda file: file.write(summary))
    _fill(log.path("detail.txt"), lambda file: write_detail(file, detail.entries))
    _fill(log.path("accuracy.json"), lambda file: write_accuracy(file, state.recorder.entries(), indices))
    _fill(log.path("trace.json"), lambda file: write_trace(file, state, log.enable_trace))
    if log.copy_summary_to_stdout:
        sys.stdout.write(summary)
    if log.copy_detail_to_stdout:
        write_detail(sys.stdout, detail.entries)


def _again(folder: Path) -> None:
    """Somebody may have removed it since the run began: what was measured is not lost with it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}: choose another folder") from error


def _fill(path: Path, content: Callable[[TextIO], object]) -> None:
    try:
        with path.open("w", encoding="utf-8") as file:
            content(file)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}: free space or choose another folder") from error
