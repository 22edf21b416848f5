"""Writes the files of a run while it goes on, so that a process that is killed leaves what it measured so far."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from loadgen.contracts import InputError
from loadgen.logs.accuracy import AccuracyLog
from loadgen.logs.detail import detail_text
from loadgen.logs.files import LogSettings
from loadgen.logs.result import result_record, unfinished_record
from loadgen.logs.summary import summary_text
from loadgen.logs.trace import TraceLog
from loadgen.results import Result, Verdict
from loadgen.state import RunState

PERIOD_S = 0.1
"""What is measured in this time is lost if the process is killed."""
_BUFFER = 1 << 20
_RESERVED = 65536  # bytes of result.json, taken before the run, so that a disk that fills up still holds the verdict
_NAMES = ("summary.txt", "detail.txt", "accuracy.json", "trace.json")


class Writer:
    """The four official files and `result.json` of a run. Answers and spans are written by a thread of its own.

    Making one raises InputError that names the file if one cannot be written. If a disk fills up later, the run fails
    and ends INVALID, `result.json` says so, and `conclude` raises.
    """

    def __init__(self, log: LogSettings, state: RunState) -> None:
        self.failure: Exception | None = None
        self._log, self._state = log, state
        self._written = 0  # entries of the detail log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="loadgen-log", daemon=True)
        self._lock = threading.Lock()  # one thread writes answers at a time
        self._result = log.outdir / "result.json"
        self._note = log.path("summary_note.txt")
        self._files: dict[str, BinaryIO] = {}
        try:
            self._put(self._result, json.dumps(unfinished_record(state.settings), indent=1).ljust(_RESERVED))
            self._note.unlink(missing_ok=True)
            for name in _NAMES:
                self._files[name] = log.path(name).open("w+b", buffering=_BUFFER)
        except OSError as error:
            self.discard()
            raise _unwritable(Path(error.filename or log.outdir), error) from error

    def begin(self) -> None:
        """Write the head of the detail log. Raises InputError."""
        self.detail_so_far()
        if self.failure is not None:
            raise self.failure

    def follow(self, state: RunState) -> None:
        """Write the answers and spans of this test."""
        self._state, recorder = state, state.recorder
        columns = [part.series.indices for part in state.parts]
        with self._guarded("accuracy.json"):
            self._accuracy = AccuracyLog(
                self._files["accuracy.json"],
                columns[0] if len(columns) == 1 else np.concatenate(columns),
                recorder.tokens if len(recorder.tokens) else None,
                recorder.spool.first_tokens if recorder.spool is not None and recorder.needs_first else None,
            )
        with self._guarded("trace.json"):
            self._trace = TraceLog(self._files["trace.json"], state)
        if recorder.spool is not None:
            recorder.spool.overflow = self._write_answers
        self._so_far()
        if recorder.spool is not None or self._log.enable_trace:
            self._thread.start()

    def detail_so_far(self) -> None:
        """Write what is new in the detail log, clock stopped."""
        entries = self._state.job.detail.entries[self._written :]
        self._written += len(entries)
        with self._guarded("detail.txt"):
            self._files["detail.txt"].write(detail_text(entries).encode())
            self._files["detail.txt"].flush()

    def finish(self) -> None:
        """Write the rest of the answers and spans. Ctrl-C meanwhile is raised when that is done."""
        self._stop.set()
        interrupted: KeyboardInterrupt | None = None
        if self._thread.ident is None:
            self._thread.start()
        while self._thread.is_alive():
            try:
                self._thread.join()
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted

    def conclude(self, result: Result, verdict: Verdict | None) -> None:
        """Write the verdict: the end of the detail log, the summary, `result.json`. Raises InputError."""
        state, detail = self._state, self._state.job.detail
        summary = summary_text(state.settings, verdict, state.name, detail.warnings, detail.errors)
        self.detail_so_far()
        self._bring_back()
        for name, text in (("summary.txt", summary), *((("summary_note.txt", result.note),) if result.note else ())):
            with self._guarded(name):
                self._log.path(name).write_text(text, encoding="utf-8")
        self._write_result(result)
        if self._log.copy_summary_to_stdout:
            sys.stdout.write(summary + result.note)
        if self._log.copy_detail_to_stdout:
            sys.stdout.write(detail_text(detail.entries))
        if self.failure is not None:
            raise self.failure

    def _bring_back(self) -> None:
        """Somebody may have removed the folder since the run began: what was measured is not lost with it."""
        for name, file in self._files.items():
            path = self._log.path(name)
            if not path.exists():
                with self._guarded(name):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    file.seek(0)
                    with path.open("wb") as copy:
                        shutil.copyfileobj(file, copy)

    def rewind(self, entries: int) -> None:
        """Forget what was written of the detail log after so many entries."""
        if self._written > entries:
            self._written = 0
            self._files["detail.txt"].seek(0)
            self._files["detail.txt"].truncate()

    def close(self) -> None:
        """The files are not written any more, whatever happened."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        for name, file in self._files.items():
            with self._guarded(name):
                file.close()

    def discard(self) -> None:
        """Nothing was run: take the files away again."""
        self.close()
        for path in (self._result, *(self._log.path(name) for name in self._files)):
            with contextlib.suppress(OSError):
                path.unlink()

    def _work(self) -> None:
        """The thread's."""
        while not self._stop.wait(PERIOD_S):
            self._so_far()
        self._write_answers()
        with self._guarded("accuracy.json"):
            self._accuracy.close()
            self._files["accuracy.json"].flush()
        with self._guarded("trace.json"):
            if self._log.enable_trace:
                self._trace.write(to_the_end=True)
            self._trace.close()
            self._files["trace.json"].flush()

    def _so_far(self) -> None:
        self._write_answers()
        with self._guarded("trace.json"):
            if self._log.enable_trace:
                self._trace.write()
            self._files["trace.json"].flush()

    def _write_answers(self) -> None:
        """Also called by who answers, when answers outgrow memory."""
        spool = self._state.recorder.spool
        with self._lock, self._guarded("accuracy.json"):
            blocks = spool.take() if spool is not None else iter(())
            if self.failure is None:
                self._accuracy.write(blocks)
                self._files["accuracy.json"].flush()

    def _write_result(self, result: Result) -> None:
        record = result_record(result)
        if self.failure is not None:
            record |= {"valid": False, "reasons": [*result.reasons, str(self.failure) or repr(self.failure)]}
        with self._guarded("result.json"):
            self._put(self._result, json.dumps(record, indent=1) + "\n")

    @staticmethod
    def _put(path: Path, text: str) -> None:
        """In place, so that a full disk has room for it."""
        with path.open("r+b" if path.is_file() else "wb") as file:
            file.write(text.encode())
            file.truncate()

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """What cannot be written fails the run, if it goes on, and is remembered."""
        path = self._result if name == "result.json" else self._log.path(name)
        try:
            yield
        except OSError as error:
            self._failed(_unwritable(path, error))
        except Exception as error:  # a thread's must not be lost
            self._failed(error, traceback.format_exc())

    def _failed(self, failure: Exception, details: str = "") -> None:
        if self.failure is None:
            self.failure = failure
            self._state.recorder.fail(str(failure) or repr(failure), details)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written: {error.strerror or error}: free space, or choose another folder or prefix"
    )
