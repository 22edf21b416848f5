"""The functions of the official API: construct, start, complete.

As in the official module one test runs at a time, so this module, alone in the package, has process-wide state.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from loadgen import settings as native
from loadgen.compat.samples import QuerySample, QuerySampleResponse, Responses, listed, made, refilled
from loadgen.compat.settings import LogSettings, TestSettings
from loadgen.compat.threads import LentThreads
from loadgen.conf import read_official
from loadgen.contracts import Ints, Responder
from loadgen.recorder import Recorder
from loadgen.run import run
from loadgen.state import IssueThreads

_id_of = attrgetter("id")
_FEW = 16  # responses up to which a loop beats columns


class _System:
    """A constructed SUT or QDL: turns queries into the callback's form. Remembers what it raised."""

    def __init__(
        self, name: Callable[[], str], issue: Callable[..., Any], flush: Callable[[], Any], fast: bool
    ) -> None:
        self._name, self._issue, self._flush, self._fast = name, issue, flush, fast
        self._samples: list[QuerySample] = []  # of the last query of MultiStream
        self.error: BaseException | None = None
        self.prepare(native.Scenario.SingleStream)

    def prepare(self, scenario: native.Scenario) -> None:
        """For a test."""
        multi_stream = scenario is native.Scenario.MultiStream
        samples = self._issue_refilled if multi_stream else self._issue_samples
        self.issue: Callable[..., None] = self._issue_columns if self._fast else samples

    @property
    def name(self) -> str:
        return self._name()

    def start(self, respond: Responder) -> None:
        assert isinstance(respond, Recorder)
        self.error = None
        _attach(respond)

    def flush(self) -> None:
        self._flush()

    def stop(self) -> None:
        _attach(None)

    # `issue` below is a local name, because Python 3.11 is slow to call what an attribute holds.

    def _issue_samples(self, ids: Ints, indices: Ints) -> None:
        issue = self._issue
        try:
            issue([QuerySample(ids + 1, indices)] if type(ids) is int else made(ids, indices))  # type: ignore[arg-type]
        except BaseException as error:
            self.error = error
            raise

    def _issue_refilled(self, ids: range, indices: list[int]) -> None:
        issue = self._issue
        try:
            issue(refilled(self._samples, ids, indices))
        except BaseException as error:
            self.error = error
            raise

    def _issue_columns(self, ids: Ints, indices: Ints) -> None:
        issue = self._issue
        try:
            if type(ids) is int:
                issue([ids + 1], [indices])
            else:
                issue(list(range(ids[0] + 1, ids[-1] + 2)), listed(indices))  # type: ignore[index]
        except BaseException as error:
            self.error = error
            raise


class _Library:
    """A constructed QSL. Remembers what it raised."""

    name = "PyQSL"

    def __init__(
        self, total: int, performance: int, load: Callable[[list[int]], Any], unload: Callable[[list[int]], Any]
    ) -> None:
        self.total_count, self.performance_count = total, performance
        self._load, self._unload = load, unload
        self.error: BaseException | None = None

    def load(self, indices: Sequence[int]) -> None:
        try:
            self._load(list(indices))
        except BaseException as error:
            self.error = error
            raise

    def unload(self, indices: Sequence[int]) -> None:
        self._unload(list(indices))


_handles = itertools.count(1)
_systems: dict[int, _System] = {}
_libraries: dict[int, _Library] = {}
_recorder: Recorder | None = None  # of the test that is running


def ConstructSUT(issue: Callable[[list[QuerySample]], Any], flush: Callable[[], Any]) -> int:
    """A system that is given lists of QuerySample."""
    return _kept(_systems, _System(lambda: "PySUT", issue, flush, fast=False))


def ConstructFastSUT(issue: Callable[[list[int], list[int]], Any], flush: Callable[[], Any]) -> int:
    """A system that is given a list of ids and a list of indices."""
    return _kept(_systems, _System(lambda: "PyFastSUT", issue, flush, fast=True))


def ConstructQDL(
    issue: Callable[[list[QuerySample]], Any], flush: Callable[[], Any], client_name: Callable[[], str]
) -> int:
    """A system over a network; its name is asked for."""
    return _kept(_systems, _System(client_name, issue, flush, fast=False))


def ConstructQSL(
    total_sample_count: int,
    performance_sample_count: int,
    load: Callable[[list[int]], Any],
    unload: Callable[[list[int]], Any],
) -> int:
    """A sample library."""
    return _kept(_libraries, _Library(total_sample_count, performance_sample_count, load, unload))


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


def StartTest(sut: int, qsl: int, requested: TestSettings, audit_config_filename: str = "audit.config") -> None:
    """Run a test with the default log settings. Blocks until every sample is answered."""
    StartTestWithLogSettings(sut, qsl, requested, LogSettings(), audit_config_filename)


def StartTestWithLogSettings(
    sut: int,
    qsl: int,
    requested: TestSettings,
    log_settings: LogSettings,
    audit_config_filename: str = "audit.config",
) -> None:
    """Run a test. What a callback raises is raised again here, after the logs say INVALID."""
    system, library = _systems[sut], _libraries[qsl]
    library.error = None
    settings, warnings, errors = _audited(requested.native(), audit_config_filename)
    threads = _issue_threads(settings)
    system.prepare(settings.scenario)
    try:
        result = run(
            system,
            library,
            settings,
            log=log_settings.native(),
            warnings=warnings,
            config_errors=errors,
            issue_threads=threads,
        )
    finally:
        _lent.give_back()
    for error in (system.error, library.error):
        if error is not None:
            raise error
    if threads is not None and any("Mismatch between settings" in message for message in result.errors):
        raise RuntimeError(result.errors[0])
    if result.interrupted:
        raise KeyboardInterrupt


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


def _attach(recorder: Recorder | None) -> None:
    """Answers go to this test from now on."""
    global _recorder
    _recorder = recorder


def QuerySamplesComplete(responses: Responses, response_cb: Callable[[QuerySampleResponse], Any] | None = None) -> None:
    """These samples are answered. `response_cb` is called for those that are logged, before they are copied."""
    recorder = _recorder
    if recorder is None:  # no test is running
        return
    now, done = recorder.now_ns, recorder.done_from_one
    at = now()
    if not recorder.times_only:
        _complete_logged(recorder, at, responses, response_cb)
        return
    taken = len(responses)
    if taken > _FEW:
        ids = np.fromiter(map(_id_of, responses), np.int64, taken)
        recorder.complete_at(at, ids - 1)
        return
    for response in responses:
        one = response.id
        try:
            if one < 0 or done[one]:
                recorder.refuse(one - 1)
                taken -= 1
            else:
                done[one] = at
        except IndexError:
            recorder.refuse(one - 1)
            taken -= 1
    if taken > 1:
        recorder.answered_at_least[0] += taken
    if recorder.waiting[0] >= 0:
        recorder.notify()


def _complete_logged(recorder: Recorder, at: int, responses: Responses, response_cb: Callable[..., Any] | None) -> None:
    for response in responses:
        position = response.id - 1
        data = None
        if recorder.keeps(position):
            if response_cb is not None:
                response_cb(response)
            data = ctypes.string_at(response.data, response.size) if response.size else b""
        recorder.complete_at(at, position, data, None, response.n_tokens)


def FirstTokenComplete(responses: Responses, response_cb: Callable[[QuerySampleResponse], Any] | None = None) -> None:
    """The first token of these samples is out. `response_cb` is not called, as officially."""
    recorder = _recorder
    if recorder is not None:
        at = recorder.now_ns()
        for response in responses:
            kept = recorder.keeps(response.id - 1) and response.size
            data = ctypes.string_at(response.data, response.size) if kept else b""
            recorder.first_token_at(at, response.id - 1, data)


def AbortTest() -> None:
    """End the running test, INVALID. Any thread."""
    if _recorder is not None:
        _recorder.fail("The test was aborted by AbortTest()")
