"""One command's work: prepare files, load the model once, run every test, score, report."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from loadgen.contracts import Backend, BackendOptions, Dataset, InputError
from loadgen.harness.assets import cache
from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.harness.layers import Layered, Overrides, layered
from loadgen.harness.machine import telemetry
from loadgen.harness.machine.facts import machine
from loadgen.harness.report import columns, record
from loadgen.harness.report import screen as display
from loadgen.harness.workers.pool import Workers, opened
from loadgen.logs import LogSettings, read_accuracy
from loadgen.results import Result
from loadgen.rules import load_round
from loadgen.run import run
from loadgen.settings import Mode, Scenario

EXIT_OK, EXIT_INVALID, EXIT_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True)
class Request:
    """What the command line asks for. Empty: the benchmark's default."""

    scenarios: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    """Of the rules (datacenter, edge): each stands for the scenarios that it requires."""
    modes: tuple[Mode, ...] = (Mode.PerformanceOnly, Mode.AccuracyOnly)
    profile: str = ""
    backend: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    batch: int = 8
    max_wait_ms: float = 0.0
    max_tokens: int | None = None
    workers: Workers = field(default_factory=Workers)
    threads: int = 0
    output: Path | None = None
    data: Path | None = None
    quiet: bool = False
    trace: bool = False
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(frozen=True)
class Score:
    """An accuracy test against its target."""

    values: dict[str, float]
    targets: dict[str, float]
    """Lowest value that passes, for each judged metric."""

    @property
    def met(self) -> bool:
        return all(self.values[name] >= least for name, least in self.targets.items())

    def __str__(self) -> str:
        parts = (
            f"{name} {self.values[name]:.3f} {'>=' if self.values[name] >= least else '<'} {least:.3f}"
            for name, least in self.targets.items()
        )
        return f"{', '.join(parts)}: {'met' if self.met else 'MISSED'}"


def choose(benchmark: Benchmark, request: Request) -> tuple[str, Profile, str, list[Scenario]]:
    """(profile name, profile, backend name, scenarios). Raises InputError that lists what there is."""
    profile = request.profile or next(iter(benchmark.profiles))
    if profile not in benchmark.profiles:
        raise InputError(f"{benchmark.name} has no profile {profile!r}: choose {_listed(benchmark.profiles)}")
    backend = request.backend or next(iter(benchmark.backends))
    if backend not in benchmark.backends:
        raise InputError(f"{benchmark.name} has no backend {backend!r}: choose {_listed(benchmark.backends)}")
    return profile, benchmark.profiles[profile], backend, _scenarios(benchmark, request)


def _scenarios(benchmark: Benchmark, request: Request) -> list[Scenario]:
    if request.scenarios and request.categories:
        raise InputError("--scenario and --category both choose scenarios: give one of them")
    offered = {s.name: s for s in benchmark.scenarios}
    names = request.scenarios
    if request.categories:
        required = load_round(request.overrides.round).model(benchmark.model).scenarios
        for category in request.categories:
            if category not in required:
                raise InputError(f"{benchmark.name} has no category {category!r}: choose {_listed(required)}")
        names = tuple(dict.fromkeys(s.name for category in request.categories for s in required[category]))
    for name in names:
        if name not in offered:
            raise InputError(f"{benchmark.name} has no scenario {name!r}: choose {_listed(offered)}")
    return [offered[name] for name in names] or list(benchmark.scenarios)


def _listed(names: Any) -> str:
    return ", ".join(names)


def data_folder(benchmark: Benchmark, profile: str, asked: Path | None) -> Path:
    """Where the profile's files are: the folder asked for, else one in the cache.

    An image says by INFERENCE_BENCH_DATA where official files are mounted; it could not keep what it makes itself.
    """
    if asked is not None:
        return asked
    mounted = os.environ.get("INFERENCE_BENCH_DATA")
    if mounted and benchmark.profiles[profile].is_official:
        return Path(mounted)
    folder = cache.root() / benchmark.name / profile
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def import_name(dotted: str, what: str, benchmark: Benchmark) -> Any:
    """`"module:name"` or `"module"`. A package that is not installed is an InputError with the command."""
    module, _, name = dotted.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == module.split(".")[0]:
            raise
        raise InputError(
            f"{what} needs the package {error.name}, which is not installed: "
            f"pip install './benchmarks/{benchmark.name}[{what.split()[-1]}]'"
        ) from error
    return getattr(found, name) if name else found


def execute(benchmark: Benchmark, request: Request, gpus: telemetry.Gpus | None = None) -> int:
    """Run what was asked and print it. Returns the exit code. gpus: those to watch; None: all that there are."""
    profile_name, profile, backend_name, scenarios = choose(benchmark, request)
    tests = [(s, m, layered(benchmark, profile, s, m, request.overrides)) for s in scenarios for m in request.modes]
    out = display.console(request.quiet)
    output = output_folder(benchmark, request.output)
    out.print(f"{benchmark.title}: profile {profile_name} ({profile.summary}), backend {backend_name}")
    folder = data_folder(benchmark, profile_name, request.data)
    dataset = open_dataset(benchmark, profile, folder)
    options = BackendOptions(
        model=folder / "model",
        device=request.device,
        dtype=request.dtype,
        threads=request.threads,
        max_batch=request.batch,
        extra=profile.model_options,
    )
    dotted = benchmark.backends[backend_name]
    found = partial(import_name, dotted, f"backend {backend_name}", benchmark)
    gpus = telemetry.find_gpus()[0] if gpus is None else gpus
    report = Report(benchmark, request, profile_name, profile, output, gpus)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(gpus))
            began = time.monotonic()
            with bad_input():
                backends = stack.enter_context(opened(request.workers, dotted, options, found))
            devices = (str(getattr(backend, "device_name", request.device)) for backend in backends)
            report.device = ", ".join(dict.fromkeys(devices))
            loaded = f"model loaded in {time.monotonic() - began:.1f} s on device {report.device}"
            out.print(f"{loaded}; {dataset.total_count:,} samples", markup=False)
            for scenario, mode, layers in tests:
                _one_test(report, dataset, backends, scenario, mode, layers, out)
                if report.results[-1].interrupted:
                    break
    finally:
        report.finish(out)
    return report.exit_code


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """Files and options are read inside: a ValueError there is the user's to mend, not a bug."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from error


def open_dataset(benchmark: Benchmark, profile: Profile, folder: Path) -> Dataset:
    """Make or check the profile's files, then read its data."""
    prepare = import_name(profile.prepare, "the profile", benchmark)
    dataset = import_name(benchmark.dataset, "the dataset", benchmark)
    with bad_input():
        prepare(folder)
        opened: Dataset = dataset(folder / "data", **profile.dataset_options)
    return opened


def output_folder(benchmark: Benchmark, asked: Path | None) -> Path:
    """A new folder for the results. Raises InputError if it cannot be written."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = asked or Path("results") / benchmark.name / stamp
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"the output folder {folder.absolute()} cannot be written as user {os.getuid()} ({error.strerror}): "
            "choose another with --output"
        ) from error
    return folder


class Report:
    """Collects results, and writes and prints them at the end, also after an error or Ctrl-C."""

    def __init__(
        self,
        benchmark: Benchmark,
        request: Request,
        profile_name: str,
        profile: Profile,
        output: Path,
        gpus: telemetry.Gpus,
    ) -> None:
        self.benchmark, self.request, self.gpus = benchmark, request, gpus
        self.device = ""
        """The one really used, when the model is loaded."""
        self.profile_name, self.profile, self.output = profile_name, profile, output
        self.results: list[Result] = []
        self.scores: list[Score | None] = []
        self.entries: list[dict[str, Any]] = []
        self.rows: list[display.Row] = []

    def add(self, result: Result, score: Score | None, seconds: float, folder: Path, layers: Layered) -> None:
        """Take in a finished test; its columns are in its folder by now, and leave memory."""
        accuracy = result.mode is Mode.AccuracyOnly
        head = result.headline
        measured = str(score) if score else f"{head.name} {head.value:.4g} {head.unit}" if head else "-"
        verdict = "VALID" if result.valid else "INVALID"
        self.results.append(replace(result, columns=None))
        self.scores.append(score)
        place = folder.relative_to(self.output).as_posix()
        sampled = None if accuracy else telemetry.read(folder)
        seen = sampled.summary() if sampled else []
        self.entries.append(record.entry(result, asdict(score) if score else None, layers, place, seen))
        self.rows.append(
            display.Row(
                scenario=result.scenario.name,
                mode="accuracy" if accuracy else "performance",
                measured=measured,
                verdict=verdict,
                queries=result.query_count,
                seconds=seconds,
                folder=str(folder),
            )
        )

    @property
    def exit_code(self) -> int:
        if any(r.interrupted for r in self.results):
            return EXIT_INTERRUPTED
        if any(r.errors for r in self.results):
            return EXIT_FAILED
        missed = any(s is not None and not s.met for s in self.scores)
        return EXIT_INVALID if missed or not all(r.valid for r in self.results) else EXIT_OK

    def finish(self, out: Console) -> None:
        """Print the table and the reasons, write `results.json` and the report."""
        if not self.results:
            return
        out.print()
        out.print(display.table(self.benchmark.title, self.rows))
        for row, result in zip(self.rows, self.results, strict=True):
            for reason in result.reasons:
                out.print(f"{row.scenario} {row.mode} is INVALID: {reason}", style="red", markup=False)
        if not self.profile.is_official:
            out.print(f"The {self.profile_name} profile is no benchmark result: {self.profile.summary}.")
        self._write()
        from loadgen.harness.report.page import write_report  # matplotlib takes a second to import

        out.print(f"logs and results: {self.output}", soft_wrap=True)
        out.print(f"report: {write_report(self.output)}", soft_wrap=True)

    def _write(self) -> None:
        written = {
            "schema": record.SCHEMA,
            "benchmark": self.benchmark.name,
            "title": self.benchmark.title,
            "profile": self.profile_name,
            "profile_summary": self.profile.summary,
            "benchmark_result": self.profile.is_official,
            "machine": {**machine(), **self.gpus.facts},
            "options": {**_options(self.benchmark, self.request), "device used": self.device},
            "tests": self.entries,
        }
        (self.output / record.FILE).write_text(json.dumps(written, indent=1) + "\n")


def _options(benchmark: Benchmark, request: Request) -> dict[str, Any]:
    """What was measured, as the command line has it; settings of the tests stand with the tests."""
    files = {"user_conf": request.overrides.user_conf, "audit_conf": request.overrides.audit_conf}
    names = ("device", "dtype", "batch", "max_wait_ms", "max_tokens", "threads")
    return {
        "backend": request.backend or next(iter(benchmark.backends)),
        **{name: value for name in names if (value := getattr(request, name)) is not None},
        "workers": str(request.workers),
        "rules": request.overrides.round,
        **{name: str(file) for name, file in files.items() if file},
    }


def _one_test(
    report: Report,
    dataset: Dataset,
    backends: Sequence[Backend],
    scenario: Scenario,
    mode: Mode,
    layers: Layered,
    out: Console,
) -> None:
    request, benchmark = report.request, report.benchmark
    kind = "accuracy" if mode is Mode.AccuracyOnly else "performance"
    folder = report.output / scenario.name / kind
    log = LogSettings(outdir=folder, enable_trace=request.trace)
    system = import_name(benchmark.system, "the system", benchmark)(
        benchmark.name,
        backends,
        dataset,
        import_name(benchmark.postprocess, "the postprocessing", benchmark).encode,
        max_batch=request.batch,
        max_wait_s=request.max_wait_ms / 1e3,
        max_tokens=request.max_tokens,
    )
    began = time.monotonic()
    with display.watching(f"{scenario.name} {kind}", out) as progress:
        watched = report.gpus if mode is Mode.PerformanceOnly else telemetry.Gpus()
        with telemetry.Sampling(watched, folder):
            result = run(system, dataset, layers.settings, log=log, progress=progress)
    if mode is not Mode.AccuracyOnly and result.columns is not None:
        columns.save(folder, result.columns)
    score = None
    if mode is Mode.AccuracyOnly and result.valid:
        score = score_log(benchmark, report.profile, request.overrides.round, dataset, log.path("accuracy.json"))
    report.add(result, score, time.monotonic() - began, folder, layers)
    row = report.rows[-1]
    out.print(f"{row.scenario} {row.mode}: {row.measured}  {row.verdict}  ({row.seconds:.1f} s)", markup=False)


def score_log(benchmark: Benchmark, profile: Profile, round_name: str, dataset: Dataset, log: Path) -> Score:
    """Score an accuracy log and write `accuracy.txt` beside it. Raises InputError for a damaged log."""
    rules = load_round(round_name).model(benchmark.model)
    module = import_name(benchmark.accuracy, "the accuracy metric", benchmark)
    with bad_input():
        values = module.score(_entries(log), dataset)
    line = rules.write_accuracy(values)
    (log.parent / "accuracy.txt").write_text(line + "\n")
    ratio = min(rules.ratios)
    least = {name: low for name, (low, _) in rules.limits(ratio).items()}
    least |= {name: reference * ratio for name, reference in profile.reference.items()}
    return Score({k: float(v) for k, v in values.items()}, least)


def _entries(log: Path) -> Iterator[tuple[int, bytes]]:
    for entry in read_accuracy(log):
        yield entry.qsl_idx, entry.data


def score_existing(benchmark: Benchmark, request: Request, log: Path) -> int:
    """The `accuracy` command: score a log that an earlier run wrote."""
    profile_name, profile, _, _ = choose(benchmark, request)
    file = log / "mlperf_log_accuracy.json" if log.is_dir() else log
    if not file.is_file():
        raise InputError(f"{file} is not there: give an mlperf_log_accuracy.json or its folder")
    dataset = open_dataset(benchmark, profile, data_folder(benchmark, profile_name, request.data))
    score = score_log(benchmark, profile, request.overrides.round, dataset, file)
    out = display.console(request.quiet)
    out.print(str(score))
    return EXIT_OK if score.met else EXIT_INVALID
