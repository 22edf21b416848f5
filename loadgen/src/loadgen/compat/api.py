"""The functions of the official API: construct, start, complete.

As in the official module one test runs at a time, so this module, alone in the package, has process-wide state.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from loadgen import settings as native
from loadgen.compat import answers, config
from loadgen.compat.constructed import Library, System
from loadgen.compat.samples import SAMPLE_BYTES, QuerySample
from loadgen.compat.settings import LogSettings, TestSettings
from loadgen.compat.threads import LentThreads
from loadgen.conf import read_official
from loadgen.run import run
from loadgen.state import IssueThreads

_handles = itertools.count(1)
_systems: dict[int, System] = {}
_libraries: dict[int, Library] = {}
_one_test = threading.Lock()


def ConstructSUT(issue: Callable[[list[QuerySample]], Any], flush: Callable[[], Any]) -> int:
    """A system that is given lists of QuerySample."""
    return _kept(_systems, System(lambda: "PySUT", issue, flush, fast=False))


def ConstructFastSUT(issue: Callable[[list[int], list[int]], Any], flush: Callable[[], Any]) -> int:
    """A system that is given a list of ids and a list of indices."""
    return _kept(_systems, System(lambda: "PyFastSUT", issue, flush, fast=True))


def ConstructQDL(
    issue: Callable[[list[QuerySample]], Any], flush: Callable[[], Any], client_name: Callable[[], str]
) -> int:
    """A system over a network; its name is asked for."""
    return _kept(_systems, System(client_name, issue, flush, fast=False))


def ConstructQSL(
    total_sample_count: int,
    performance_sample_count: int,
    load: Callable[[list[int]], Any],
    unload: Callable[[list[int]], Any],
) -> int:
    """A sample library."""
    return _kept(_libraries, Library(total_sample_count, performance_sample_count, load, unload))


def _kept(kind: dict[int, Any], thing: object) -> int:
    handle = next(_handles)
    kind[handle] = thing
    return handle


def DestroySUT(handle: int) -> None:
    """Forget a system."""
    _systems.pop(handle, None)


DestroyFastSUT = DestroyQDL = DestroySUT


def DestroyQSL(handle: int) -> None:
    """Forget a sample library."""
    _libraries.pop(handle, None)


def StartTest(sut: int, qsl: int, test_settings: TestSettings, audit_config_filename: str = "audit.config") -> None:
    """Run a test with the default log settings. Blocks until every sample is answered."""
    StartTestWithLogSettings(sut, qsl, test_settings, LogSettings(), audit_config_filename)


def StartTestWithLogSettings(
    sut: int,
    qsl: int,
    test_settings: TestSettings,
    log_settings: LogSettings,
    audit_config_filename: str = "audit.config",
) -> None:
    """Run a test. What a callback or a signal's handler raises is raised again here, after the logs say INVALID."""
    system, library = (
        _found(_systems, sut, "system", "ConstructSUT"),
        _found(_libraries, qsl, "library", "ConstructQSL"),
    )
    with _alone(), _terminated():
        settings, warnings, errors = _audited(test_settings.native(), audit_config_filename)
        threads = _issue_threads(settings)
        system.prepare(settings.scenario)
        try:
            result = run(
                system,
                library,
                settings,
                log=log_settings.native(),
                warnings=warnings,
                config_errors=[*config.errors_so_far(), *errors],
                watchdog_s=test_settings.watchdog_s or None,
                issue_threads=threads,
                sample_bytes=SAMPLE_BYTES,
            )
        finally:
            _lent.give_back()
    if result.note:
        print(result.note, file=sys.stderr)
    if result.raised is not None:
        raise result.raised
    if result.interrupted:  # while the logs were written
        raise KeyboardInterrupt
    if threads is not None and any("Mismatch between settings" in message for message in result.errors):
        raise RuntimeError(result.errors[0])


def _found(kind: dict[int, Any], handle: int, what: str, maker: str) -> Any:
    if handle not in kind:
        raise ValueError(f"{handle!r} is no {what}: pass what {maker} returned, before it is destroyed")
    return kind[handle]


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse a test beside another, or within it."""
    if not _one_test.acquire(blocking=False):
        raise RuntimeError(
            "a test is running: one runs at a time in a process; start the next when StartTest has returned"
        )
    try:
        yield
    finally:
        _one_test.release()


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends a test with whole logs, unless the submission has a handler of its own; then the process ends."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    is_ours = threading.current_thread() is threading.main_thread()
    is_ours = is_ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


_lent = LentThreads()


def RegisterIssueQueryThread() -> None:
    """Lend this thread to the next test, whose Server queries it will issue. Returns when that test has ended.

    Needs `TestSettings.server_num_issue_query_threads`: so many threads must call this.
    """
    _lent.lend()


def _issue_threads(settings: native.TestSettings) -> IssueThreads | None:
    wanted = settings.server_num_issue_query_threads if settings.scenario is native.Scenario.Server else 0
    return partial(_lent.call, wanted) if wanted else None


def _audited(settings: native.TestSettings, file: str) -> tuple[native.TestSettings, list[str], tuple[str, ...]]:
    """Settings after audit.config, if there is one, and after TEST05; the warnings and errors that go with them."""
    audited = settings
    warnings: list[str] = []
    errors: tuple[str, ...] = ()
    if Path(file).is_file():
        warnings = ["Found Audit Config file (audit.config). Overriding TestSettings from audit.config file."]
        outcome = read_official(file, "*", settings.scenario.name, settings)
        audited, errors = outcome.settings, outcome.errors
    if audited.test05:
        warnings.append(native.TEST05_WARNING)
        audited = native.with_test05_seeds(audited, settings)
    return audited, warnings, errors


QuerySamplesComplete = answers.QuerySamplesComplete
FirstTokenComplete = answers.FirstTokenComplete
AbortTest = answers.AbortTest
