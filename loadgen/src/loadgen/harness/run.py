"""The `run` command: prepare files, load the model once, run every test, score, report."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from loadgen.contracts import Backend, Dataset, InputError, Loaded, Measures, SampleLibrary
from loadgen.harness import claims, peak
from loadgen.harness.files import owned
from loadgen.harness.loading import Spoken, held
from loadgen.harness.machine import needs, rapl, telemetry
from loadgen.harness.plan import Layered, Plan, installed
from loadgen.harness.report import columns, rebuild, record, screen
from loadgen.harness.report.collect import Report
from loadgen.harness.scoring import open_dataset, score_log
from loadgen.harness.workers import Opened, opened
from loadgen.logs import LogSettings, own_version
from loadgen.results import Result
from loadgen.rules import Accuracy
from loadgen.run import run
from loadgen.settings import Mode, Scenario, TestSettings

Found = TypeVar("Found")


def execute(plan: Plan, gpus: telemetry.Gpus | None = None, then: Callable[[Bench], None] = lambda _: None) -> int:
    """Run what was asked and print it. Returns the exit code.

    gpus: those to watch; None: all that there are. then: what follows the tests while the model is loaded.
    """
    own_version()  # a package that is not installed fails now, not after the model is loaded
    out = screen.console(plan.request.quiet)
    with output_folder(plan) as output:
        return _execute(plan, output, out, telemetry.find_gpus()[0] if gpus is None else gpus, then)


def _execute(plan: Plan, output: Path, out: Console, gpus: telemetry.Gpus, then: Callable[[Bench], None]) -> int:
    out.print(
        f"{plan.benchmark.title}: profile {plan.profile_name} ({plan.profile.summary}), backend {plan.backend_name}"
    )
    dataset = open_dataset(plan)
    report = Report(plan, output, gpus)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(gpus))
            workers = load_workers(plan, stack, out)
            out.print(f"{dataset.total_count:,} samples")
            shortfalls = claims.shortfalls(plan, dataset.total_count, gpus.facts)
            tests = report.begin(workers.loaded, shortfalls)
            needs.check_room(dataset, tests, output)
            if shortfalls and plan.profile.is_official:
                out.print(screen.claim(shortfalls), style="yellow", markup=False)
            bench = Bench(plan, report, dataset, workers.backends, out)
            for layers in tests:
                result = bench.at_peak(layers) if plan.request.find_peak else bench.test(layers)
                if result.interrupted:
                    break
            else:
                then(bench)
    finally:
        report.finish(out)
    return report.exit_code


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP (`docker stop`, a batch system, a lost connection) end a run as Ctrl-C does."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def undisturbed() -> Iterator[list[int]]:
    """What is done inside is done to the end; the signals that came meanwhile (Ctrl-C and its like) are in the list."""
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def load_workers(plan: Plan, stack: contextlib.ExitStack, out: Console) -> Opened[Any, Any]:
    """Each worker's backend with its model; closed when `stack` is."""
    began = time.monotonic()
    spec = plan.backend
    found = partial(plan.imported, spec.name, f"backend {plan.backend_name}", spec.extra)
    install = installed(plan.benchmark, spec.extra)
    workers: Opened[Any, Any] = stack.enter_context(
        opened(plan.request.workers, spec.name, plan.options, found, install)
    )
    out.print(f"model loaded in {time.monotonic() - began:.1f} s on {_places(workers.loaded)}", markup=False)
    return workers


def _places(loaded: Sequence[Loaded]) -> str:
    """`cpu in float32`, of each worker once."""
    return ", ".join(dict.fromkeys(f"{one.device} in {one.dtype}" for one in loaded))


@contextlib.contextmanager
def output_folder(plan: Plan) -> Iterator[Path]:
    """A folder for the results, which no other run may use meanwhile. Raises InputError if it cannot be written."""
    try:
        folder = plan.request.output or _new_folder(Path("results") / plan.benchmark.name)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        place = (plan.request.output or Path("results")).absolute()
        raise InputError(
            f"the output folder {place} cannot be written as user {os.getuid()} ({error.strerror}): "
            "choose another with --output"
        ) from error
    with owned(folder, "--output"):
        yield folder


def _new_folder(above: Path) -> Path:
    """One named by the time; of runs that begin in one second each gets its own."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for name in itertools.chain([stamp], (f"{stamp}-{n}" for n in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            (above / name).mkdir(parents=True)
            return above / name
    raise AssertionError("there is always another number")


@dataclass(frozen=True)
class Bench:
    """What all tests of a run share."""

    plan: Plan
    report: Report
    dataset: Dataset[Any]
    backends: Sequence[Backend[Any, Any]]
    out: Console

    def system(self) -> Any:
        """A new one around the loaded backends."""
        plan = self.plan
        encode = plan.imported(plan.benchmark.postprocess, "the postprocessing").encode
        build = plan.imported(plan.benchmark.system, "the system")
        return build(plan.benchmark.name, self.backends, self.dataset, encode, plan.batching)

    def at_peak(self, layers: Layered) -> Result:
        """The test at the highest rate that a search finds; a test without a rate as it is."""
        if not peak.is_sought(layers):
            return self.test(layers)
        name = layers.settings.scenario.name
        if layers.settings.scenario is Scenario.Offline:
            return self.test(peak.at_rate(layers, self._searched(partial(peak.find_offline_rate, layers))))
        self._say(f"{name}: searching the highest rate, with at most {peak.STEPS} tests of {peak.TRY_S:g} s or more")
        rate, tried = self._searched(partial(peak.find_server_rate, layers))
        if rate is None:
            self._say(f"{name}: no rate down to {tried[-1].rate:,.3g}/s holds; the test runs at that of its settings")
            return self.test(layers, tried)
        for share in peak.SHARES:
            result = self.test(peak.at_rate(layers, share * rate), tried)
            if result.valid or result.interrupted:
                break
        return result

    def _searched(self, find: Callable[[Callable[[TestSettings], Result], Callable[[str], None]], Found]) -> Found:
        """What a search finds, whose tests all use the same loaded samples."""
        with held(Spoken(self.dataset, self._say)) as library:
            return find(partial(self._try, library), self._say)

    def _try(self, library: SampleLibrary, settings: TestSettings) -> Result:
        result = run(self.system(), library, settings, watchdog_s=self.plan.request.drain_timeout_s)
        result.raise_failure()
        return result

    def _say(self, line: str) -> None:
        self.out.print(line, markup=False)

    def test(self, layers: Layered, tried: Sequence[peak.Tried] = ()) -> Result:
        """Run it, as often as is asked for, and record it: of several runs the middle one, with all their figures."""
        timed = layers.settings.mode is Mode.PerformanceOnly
        done: list[_Run] = []
        for number in range(self.plan.request.repeat if timed else 1):
            done.append(self._once(layers, number))
            middle = _middle(done)
            figures = [one.figure for one in done]
            with undisturbed() as came:
                row = self.report.add(
                    middle.result, middle.judged, middle.seconds, middle.folder, layers, tried, figures
                )
            self._say(f"{row.scenario} {row.mode}: {row.measured}  {row.verdict}  ({row.seconds:.1f} s)")
            if done[-1].failure or came:
                raise done[-1].failure or KeyboardInterrupt
            if done[-1].result.errors or done[-1].result.interrupted:
                break
        return middle.result

    def _once(self, layers: Layered, number: int) -> _Run:
        """Run and score it. number: of earlier runs of the same test."""
        scenario, mode = layers.settings.scenario, layers.settings.mode
        kind = "accuracy" if mode is Mode.AccuracyOnly else "performance"
        folder = self.report.output / scenario.name / (f"{kind}-{number + 1}" if number else kind)
        began = time.monotonic()
        watched = self.report.gpus if mode is Mode.PerformanceOnly else telemetry.Gpus()
        before = rebuild.answered(folder) if self.plan.request.missing and kind == "accuracy" else None
        if before is not None:
            self._say(f"{scenario.name} accuracy: all samples were answered before; now they are scored")
            result, system = before, None
        else:
            with telemetry.Sampling(watched, folder), rapl.Counting(folder):
                result, system = self.measure(layers.settings, folder, kind)
        failure: BaseException | None = None
        if mode is not Mode.AccuracyOnly:
            with undisturbed() as came:
                result = _with_columns(result, system, folder)
            failure = KeyboardInterrupt() if came else None
        judged: tuple[Accuracy, ...] = ()
        try:
            if mode is Mode.AccuracyOnly and result.valid:
                judged = score_log(self.plan, self.dataset, folder / "mlperf_log_accuracy.json", self.out)
        except BaseException as error:  # the answers are kept, and can be scored by the `accuracy` command
            failure, stopped = error, isinstance(error, KeyboardInterrupt)
            reason = f"the answers are not scored: {'interrupted' if stopped else error}"
            result = replace(result, valid=False, reasons=(*result.reasons, reason), interrupted=stopped)
        figure = record.figure(result, layers.settings)
        return _Run(replace(result, columns=None), judged, time.monotonic() - began, folder, figure, failure)

    def measure(self, settings: TestSettings, folder: Path, what: str) -> tuple[Result, Any]:
        """Run one test on a new system, with its logs in `folder`. Returns its result, and the system.

        what: the test's name on the screen, after the scenario's.
        """
        log = LogSettings(outdir=folder, enable_trace=self.plan.request.trace)
        system, limit_s = self.system(), self.plan.request.drain_timeout_s
        label = f"{settings.scenario.name} {what}"
        library = Spoken(self.dataset, lambda line: self._say(f"{label}: {line}"))
        with screen.watching(label, self.out) as progress:
            return run(system, library, settings, log=log, progress=progress, watchdog_s=limit_s), system


def _with_columns(result: Result, system: Any, folder: Path) -> Result:
    """The result with what the system measured; columns go to files beside the logs."""
    if result.columns is not None:
        columns.save(folder, result.columns)
    figures = system.measured() if isinstance(system, Measures) else {}
    single = {name: value for name, value in figures.items() if isinstance(value, float)}
    columns.save_figures(folder, {name: value for name, value in figures.items() if name not in single})
    return replace(result, metrics={**result.metrics, **single})


@dataclass(frozen=True)
class _Run:
    """One run of a test."""

    result: Result
    judged: tuple[Accuracy, ...]
    seconds: float
    folder: Path
    figure: float | None
    """By which it is compared with others of the same test."""
    failure: BaseException | None
    """What scoring raised, or a signal that came since the test."""


def _middle(done: Sequence[_Run]) -> _Run:
    """The first that is INVALID, if one is: nobody may choose the luckiest. Else the median by figure."""
    invalid = next((one for one in done if not one.result.valid), None)
    ordered = sorted(done, key=lambda one: one.figure or 0.0)
    return invalid or ordered[(len(ordered) - 1) // 2]
