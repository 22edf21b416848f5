"""The command line of every benchmark. Imports nothing heavy until a command runs."""

from __future__ import annotations

import importlib.metadata
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from loadgen.harness import submission
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.exits import EXITS

if TYPE_CHECKING:
    from loadgen.harness.plan import Plan, Request

_HELP = ["-h", "--help"]


class _Number(click.FloatRange):
    """A number above 0, and finite: Python's `float` takes nan and inf too."""

    name = "number"

    def __init__(self, *, zero: bool = False) -> None:
        super().__init__(min=0, min_open=not zero)

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class _Path(click.Path):
    """A path. An empty one, as of a variable that is not set, would be this folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "":
            self.fail("is empty: give a file's or folder's name", param, ctx)
        return super().convert(value, param, ctx)


_NUMBER, _FROM_0 = _Number(), _Number(zero=True)
_REPEAT = "Runs of each performance test: the median is recorded, with the spread, which `compare` allows for."
_PEAK = "Search the highest rate at which Server is VALID, and Offline's rate; then test at those, starting from --qps."
_RESUME = "Run what that folder has no finished test of, with the options it was begun with; give no others."
_DRAIN = "Seconds without any answer after which a test that waits for one ends, INVALID."

_PROFILE = click.option("--profile", default="", help="Where files come from; see the list above.")
_BACKEND = click.option("--backend", default="", help="Runtime: one of the list above, or module:Class of yours.")
_DEVICE = click.option("--device", default="", help="cpu, cuda or cuda:N; by default the backend's first.")
_DTYPE = click.option("--dtype", default="", help="Number format of the model; by default the backend's first.")
_OUTPUT = click.option("--output", type=_Path(), help="Folder for the results.")
_ROUND = click.option("--round", "round_", default="v4.0", show_default=True, help="Rules to follow.")
_RATIO = click.option(
    "--ratio",
    type=_NUMBER,
    help="Share of the reference score to judge by, 0.99 or 0.999; by default all of the rules.",
)
_PLACE = [
    click.option("--data", type=_Path(), help="Folder that holds data/ and model/."),
    click.option("--quiet", is_flag=True, help="Print nothing but errors."),
]
_COMMON = [_PROFILE, *_PLACE, _ROUND, _RATIO]
_RUN = [
    click.option("--scenario", multiple=True, help="SingleStream, MultiStream, Server or Offline; repeatable."),
    click.option("--category", multiple=True, help="datacenter or edge: all scenarios that its results need."),
    _BACKEND,
    _DEVICE,
    _DTYPE,
    click.option("--batch", type=click.IntRange(1), help="Most samples of a batch; by default the backend's."),
    click.option(
        "--max-wait-ms",
        type=_FROM_0,
        default=0.0,
        show_default=True,
        help="Longest wait for a fuller batch.",
    ),
    click.option("--max-cost", type=click.IntRange(1), help="Most that a batch may cost, in the dataset's unit."),
    click.option("--threads", type=click.IntRange(0), default=0, help="Threads of the runtime; 0: its choice."),
    click.option(
        "--workers",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Copies of the model: with --device cuda each has its own GPU; on a CPU they share --threads.",
    ),
    click.option("--gpus-per-worker", type=click.IntRange(1), default=1, help="GPUs that one model is spread over."),
    click.option("--worker-kind", type=click.Choice(["thread", "process"]), default="thread", show_default=True),
    click.option("--replicas", type=click.IntRange(1), help="Copies on a Ray cluster, each with its own --threads."),
    click.option("--ray-address", default="local", show_default=True, help="auto, host:port, ray://host:port, local."),
    click.option("--duration", type=_NUMBER, help="Shortest time of a performance test, in seconds."),
    click.option("--qps", type=_NUMBER, help="Target rate of Server, expected rate of Offline."),
    click.option("--user-conf", type=_Path(), help="A user.conf with your settings."),
    click.option("--audit-conf", type=_Path(), help="An audit.config of a compliance test."),
]

_LOG = [
    click.option("--partial", is_flag=True, help="Score a log of a part of the samples; its score is no result."),
    click.option("--max-examples", type=click.IntRange(1), help="Score only the first so many; no result either."),
    click.option("--dtype", default="", help="Number format of another system's log, as the official script has it."),
    click.option("--transposed", is_flag=True, help="Answers of another system are laid out the other way round."),
]


_MEASURE = [
    click.option("--mode", type=click.Choice(["performance", "accuracy", "both"]), default="both", show_default=True),
    _OUTPUT,
    click.option("--trace", is_flag=True, help="Write mlperf_log_trace.json too."),
    click.option("--drain-timeout", type=_NUMBER, default=600.0, show_default=True, help=_DRAIN),
    click.option("--repeat", type=click.IntRange(1), default=1, show_default=True, help=_REPEAT),
    click.option("--find-peak", is_flag=True, help=_PEAK),
    click.option("--missing", is_flag=True, hidden=True),  # what --resume adds to the options of the first run
]

_TESTS = "auto: those that the round requires; or names with commas, such as TEST01,TEST05."


def main(benchmark: Benchmark) -> NoReturn:
    """Run the command line of one benchmark; ends the process with a documented exit code."""
    sys.exit(invoke(benchmark, sys.argv[1:]))


def invoke(benchmark: Benchmark, arguments: list[str]) -> int:
    """As `main`, but returns the exit code."""
    if arguments == ["--version"]:
        click.echo(f"bench_{benchmark.name} with inference-loadgen {importlib.metadata.version('inference-loadgen')}")
        return 0
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in _HELP):
        arguments = ["run", *arguments]
    return guarded(command(benchmark), arguments, f"bench_{benchmark.name}")


def guarded(group: click.Group, arguments: list[str], name: str) -> int:
    """Run a command, and turn what it raises into a documented exit code."""
    try:
        return int(group.main(arguments, prog_name=name, standalone_mode=False, obj=arguments) or 0)
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    """A bad input prints one message; anything else is a bug and prints where it happened."""
    from loadgen.contracts import InputError

    if isinstance(error, InputError):
        click.echo(f"error: {error}", err=True)
        return 2
    traceback.print_exception(error)
    return 3


def command(benchmark: Benchmark) -> click.Group:
    """The click command group of one benchmark."""
    offers = "\n".join(
        [
            f"  scenarios  {', '.join(s.name for s in benchmark.scenarios)}",
            f"  backends   {', '.join(benchmark.backends)}",
            *(f"  profile    {name}: {profile.summary}" for name, profile in benchmark.profiles.items()),
        ]
    )
    group = click.Group(
        help=f"{benchmark.title}. Without a command: run.\n\n\b\n{offers}",
        epilog=f"{EXITS['run']}\n\nOf `run`; COMMAND --help has those of another command.",
        context_settings={"help_option_names": _HELP, "max_content_width": 100},
    )
    for add in (_run, _comply, _accuracy, _info, _doctor, _fetch, _synthesize, _train_mini, _speed, _report, _compare):
        add(group, benchmark)
    submission.add(group, benchmark.name)
    return group


def _run(group: click.Group, benchmark: Benchmark) -> None:
    @group.command("run", help="Run tests: by default every scenario, performance and accuracy.", epilog=EXITS["run"])
    @_options(_RUN + _COMMON + _MEASURE)
    @click.option("--resume", type=_Path(), metavar="FOLDER", help=_RESUME)
    @click.pass_context
    def _(context: click.Context, /, resume: Path | None, **options: Any) -> int:
        from loadgen.harness.report.record import arguments_of
        from loadgen.harness.run import execute, interrupted_by_signals

        if resume is not None:
            return invoke(benchmark, ["run", *arguments_of(resume), "--output", str(resume), "--missing"])
        with interrupted_by_signals():
            return execute(_plan(benchmark, {**options, "arguments": tuple(context.obj[1:])}))


def _comply(group: click.Group, benchmark: Benchmark) -> None:
    @group.command(
        "comply",
        help="Run, judge and place the round's compliance tests: of the run in FOLDER, with the options that it was "
        "begun with, or of a new one.",
        epilog=EXITS["comply"],
    )
    @click.argument("folder", required=False, type=_Path())
    @click.option("--tests", default="auto", show_default=True, help=_TESTS)
    @_options(_RUN + _COMMON + _MEASURE)
    @click.pass_context
    def _(context: click.Context, /, folder: Path | None, tests: str, **options: Any) -> int:
        from loadgen.harness.comply import comply, words_of_run
        from loadgen.harness.report.record import arguments_of
        from loadgen.harness.run import interrupted_by_signals

        if folder is not None:
            again = [*arguments_of(folder), "--output", str(folder), "--missing"]
            return invoke(benchmark, ["comply", "--tests", tests, *again])
        arguments = words_of_run(context.obj[1:])
        with interrupted_by_signals():
            return comply(_plan(benchmark, {**options, "mode": "both", "arguments": arguments}), tests)


def _accuracy(group: click.Group, benchmark: Benchmark) -> None:
    @group.command(
        "accuracy",
        help="Score the accuracy log LOG (a file or its folder).",
        epilog=EXITS["accuracy"],
    )
    @click.argument("log", type=_Path())
    @_options([*_COMMON, _DEVICE, *_LOG])
    def _(log: Path, partial: bool, dtype: str, transposed: bool, max_examples: int | None, **options: Any) -> int:
        from loadgen.harness.scoring import LogOptions, score_existing

        reading = LogOptions(dtype, transposed, max_examples, partial)
        return score_existing(_plan(benchmark, options), log, reading)


def _info(group: click.Group, benchmark: Benchmark) -> None:
    @group.command(
        "info",
        help="Say what would run, what it needs and where each setting comes from.",
        epilog=EXITS["info"],
    )
    @_options(_RUN + _COMMON)
    def _(**options: Any) -> int:
        from loadgen.harness.machine.info import describe

        for line in describe(_plan(benchmark, options)):
            click.echo(line)
        return 0


def _doctor(group: click.Group, benchmark: Benchmark) -> None:
    @group.command(
        "doctor",
        help="Check this machine; each finding has a fix.",
        epilog=EXITS["doctor"],
    )
    @_options([_PROFILE, _BACKEND, _DEVICE, _DTYPE, *_PLACE, _OUTPUT])
    def _(**options: Any) -> int:
        from loadgen.harness.machine.doctor import execute

        return execute(_plan(benchmark, options))


def _fetch(group: click.Group, benchmark: Benchmark) -> None:
    @group.command(
        "fetch",
        help="Check the official files; copy those that are missing from a folder, else download them.",
        epilog="Files are kept for all benchmarks in ~/.cache/inference-bench/blobs; remove it freely.\n\n"
        + EXITS["fetch"],
    )
    @_options([_PROFILE, _BACKEND, _DTYPE, *_PLACE])
    @click.option("--from", "source", type=_Path(), help="Copy from this folder; no network.")
    @click.option("--check", is_flag=True, help="Only say which files are there and right.")
    def _(source: Path | None, check: bool, **options: Any) -> int:
        from loadgen.harness.assets.fetch import execute, official

        return execute(official(benchmark, _request(**options)), source, check)


def _synthesize(group: click.Group, benchmark: Benchmark) -> None:
    @group.command(
        "synthesize",
        help="Make the synthetic profile's files ahead of a run.",
        epilog=EXITS["synthesize"],
    )
    @_options([_BACKEND, *_PLACE])
    def _(**options: Any) -> int:
        from loadgen.harness.standins.commands import synthesize

        return synthesize(benchmark, _request(**options))


def _train_mini(group: click.Group, benchmark: Benchmark) -> None:
    @group.command(
        "train-mini",
        help="Train the miniature again: --output FILE, --device cpu|cuda, and what `train-mini -- --help` lists.",
        epilog=EXITS["train-mini"],
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
    def _(arguments: tuple[str, ...]) -> int:
        from loadgen.harness.standins.commands import train_mini

        return train_mini(benchmark, arguments)


def _speed(group: click.Group, benchmark: Benchmark) -> None:
    @group.command(
        "speed",
        help="Offline beside one sample at a time; or a sweep of scenarios and Server's rates.",
        epilog=EXITS["speed"],
    )
    @_options([*_RUN, *_COMMON])
    @click.option("--samples", type=click.IntRange(1), default=32, show_default=True, help="Of each pair.")
    @click.option("--pairs", type=click.IntRange(1), default=3, show_default=True)
    @click.option("--sweep", is_flag=True, help="All scenarios, then Server at rising rates until two are INVALID.")
    @click.option("--rate", "rates", type=_NUMBER, multiple=True, help="Of Server in a sweep; repeatable.")
    @click.option("--html", type=_Path(), help="Write a sweep to this file too, with Server's latency by rate.")
    def _(samples: int, pairs: int, sweep: bool, rates: tuple[float, ...], html: Path | None, **options: Any) -> int:
        from loadgen.harness.speed import pairs as paired
        from loadgen.harness.speed import sweep as swept

        plan = _plan(benchmark, options)
        return swept.execute(plan, rates, html) if sweep else paired.execute(plan, samples, pairs)


def _report(group: click.Group, benchmark: Benchmark) -> None:
    @group.command(
        "report",
        help="Write report.html and results.csv of the run in FOLDER again, and results.json if it is lost or damaged.",
        epilog=EXITS["report"],
    )
    @click.argument("folder", type=_Path())
    def _(folder: Path) -> int:
        from loadgen.harness.report import rebuild
        from loadgen.harness.report.page import write_report

        if said := rebuild.mended(folder, benchmark.name, benchmark.title):
            click.echo(f"note: {said}", err=True)
        click.echo(write_report(folder))
        return 0


def _compare(group: click.Group, benchmark: Benchmark) -> None:
    @group.command(
        "compare",
        help="Compare the run in folder B with the one in A: figures, verdicts, settings, machines.",
        epilog=EXITS["compare"],
    )
    @click.argument("a", type=_Path())
    @click.argument("b", type=_Path())
    @click.option(
        "--fail-above",
        type=_FROM_0,
        metavar="PERCENT",
        help="Exit code 1 if B is worse by more, or if a test is VALID in A only.",
    )
    @click.option("--html", type=_Path(), help="Write the comparison to this file too.")
    def _(a: Path, b: Path, fail_above: float | None, html: Path | None) -> int:
        from loadgen.harness.report.compare import execute

        return execute(a, b, fail_above, html)


def _options(options: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _plan(benchmark: Benchmark, options: dict[str, Any]) -> Plan:
    """Options as click gives them, resolved. Raises InputError."""
    from loadgen.harness.plan import resolve

    plan = resolve(benchmark, _request(**options))
    for note in plan.notes:
        click.echo(f"warning: {note}", err=True)
    return plan


def _request(**options: Any) -> Request:
    """Options as click gives them, parsed once."""
    from loadgen.harness.request import request

    return request(**options)
