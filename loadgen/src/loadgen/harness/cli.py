"""The command line of every benchmark. Imports nothing heavy until a command runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from loadgen.harness.benchmark import Benchmark

if TYPE_CHECKING:
    from loadgen.harness.run import Request

_EXITS = """\b
Exit codes:
  0    done; every test VALID and every accuracy target met
  1    a test INVALID or an accuracy target missed
  2    wrong usage or input that cannot be used
  3    the system or the model failed
  130  interrupted; what was measured is kept, marked INVALID
"""

_DOCTOR_EXITS = """\b
Exit codes:
  0  a run is possible; warnings make it slower, or its numbers less even
  2  a problem makes a run impossible
"""

_HELP = ["-h", "--help"]

_PROFILE = click.option("--profile", default="", help="Where files come from; see the list above.")
_BACKEND = click.option("--backend", default="", help="Runtime; see the list above.")
_DEVICE = click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
_OUTPUT = click.option("--output", type=click.Path(path_type=Path), help="Folder for logs and results.")
_DTYPE = click.option("--dtype", default="float32", show_default=True, help="Number format of the model.")
_PLACE = [
    click.option("--data", type=click.Path(path_type=Path), help="Folder that holds data/ and model/."),
    click.option("--quiet", is_flag=True, help="Print nothing but errors."),
]
_COMMON = [
    _PROFILE,
    *_PLACE,
    click.option("--round", "round_", default="v4.0", show_default=True, help="Rules to follow."),
]
_RUN = [
    click.option("--scenario", multiple=True, help="SingleStream, MultiStream, Server or Offline; repeatable."),
    click.option("--category", multiple=True, help="datacenter or edge: all scenarios that a result there needs."),
    _BACKEND,
    _DEVICE,
    _DTYPE,
    click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Most samples a batch."),
    click.option(
        "--max-wait-ms",
        type=click.FloatRange(0),
        default=0.0,
        show_default=True,
        help="Wait for a fuller batch.",
    ),
    click.option("--threads", type=click.IntRange(0), default=0, help="Threads of the runtime; 0: its choice."),
    click.option(
        "--max-tokens", type=click.IntRange(1), help="Most that a batch's longest sample times its size may be."
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Copies of the model; with --device cuda one a GPU, on the processor they share --threads.",
    ),
    click.option("--worker-kind", type=click.Choice(["thread", "process"]), default="thread", show_default=True),
    click.option("--replicas", type=click.IntRange(1), help="Copies on a Ray cluster, each with its own --threads."),
    click.option("--ray-address", default="local", show_default=True, help="auto, host:port, ray://host:port, local."),
    click.option("--duration", type=float, help="Seconds that a performance test lasts at least."),
    click.option("--qps", type=float, help="Target rate of Server, expected rate of Offline."),
    click.option("--user-conf", type=click.Path(path_type=Path), help="A user.conf with your settings."),
    click.option("--audit-conf", type=click.Path(path_type=Path), help="An audit.config of a compliance test."),
]


def main(benchmark: Benchmark) -> NoReturn:
    """Run the command line of one benchmark; ends the process with a documented exit code."""
    sys.exit(invoke(benchmark, sys.argv[1:]))


def invoke(benchmark: Benchmark, arguments: list[str]) -> int:
    """As `main`, but returns the exit code."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in _HELP):
        arguments = ["run", *arguments]
    try:
        name = f"bench_{benchmark.name}"
        return int(command(benchmark).main(arguments, prog_name=name, standalone_mode=False) or 0)
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
    from loadgen.conf import ConfError
    from loadgen.contracts import InputError
    from loadgen.rules import RulesError
    from loadgen.settings import SettingsError

    if isinstance(error, (InputError, ConfError, RulesError, SettingsError, OSError)):
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

    @click.group(
        help=f"{benchmark.title}. Without a command: run.\n\n\b\n{offers}",
        epilog=_EXITS,
        context_settings={"help_option_names": _HELP, "max_content_width": 100},
    )
    def group() -> None: ...

    @group.command(help="Run tests: by default every scenario, performance and accuracy.", epilog=_EXITS)
    @_options(_RUN + _COMMON)
    @click.option("--mode", type=click.Choice(["performance", "accuracy", "both"]), default="both", show_default=True)
    @_options([_OUTPUT])
    @click.option("--trace", is_flag=True, help="Write mlperf_log_trace.json too.")
    def run(**options: Any) -> int:
        from loadgen.harness.run import execute

        return execute(benchmark, _request(**options))

    @group.command(help="Score the accuracy log LOG (a file or its folder).")
    @click.argument("log", type=click.Path(path_type=Path))
    @_options(_COMMON)
    def accuracy(log: Path, **options: Any) -> int:
        from loadgen.harness.run import score_existing

        return score_existing(benchmark, _request(**options), log)

    @group.command(help="Say what would run, what it needs and where each setting is from.")
    @_options(_RUN + _COMMON)
    def info(**options: Any) -> int:
        from loadgen.harness.machine.info import describe

        for line in describe(benchmark, _request(**options)):
            click.echo(line)
        return 0

    @group.command(help="Check this machine; each finding has a fix.", epilog=_DOCTOR_EXITS)
    @_options([_PROFILE, _BACKEND, _DEVICE, _DTYPE, *_PLACE, _OUTPUT])
    def doctor(**options: Any) -> int:
        from loadgen.harness.machine.doctor import execute

        return execute(benchmark, _request(**options))

    @group.command(
        help="Check the official files; copy those that lack from a folder, else download them.",
        epilog=f"Files are kept for all benchmarks in ~/.cache/inference-bench/blobs; remove it freely.\n\n{_EXITS}",
    )
    @_options([_PROFILE, _BACKEND, _DTYPE, *_PLACE])
    @click.option("--from", "source", type=click.Path(path_type=Path), help="Copy from this folder; no network.")
    @click.option("--check", is_flag=True, help="Only say what is there, and right.")
    def fetch(source: Path | None, check: bool, **options: Any) -> int:
        from loadgen.harness.assets.fetch import execute

        return execute(benchmark, _request(**options), source, check)

    @group.command(help="Make the synthetic profile's files ahead of a run.", epilog=_EXITS)
    @_options([_BACKEND, *_PLACE])
    def synthesize(**options: Any) -> int:
        from loadgen.harness.standins.commands import synthesize

        return synthesize(benchmark, _request(**options))

    @group.command(
        "train-mini",
        help="Train the miniature anew. Takes --output FILE, --device cpu|cuda, and what `train-mini -- --help` lists.",
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
    def train_mini(arguments: tuple[str, ...]) -> int:
        from loadgen.harness.standins.commands import train_mini

        return train_mini(benchmark, arguments)

    @group.command(help="Write report.html and results.csv of the run in FOLDER anew.")
    @click.argument("folder", type=click.Path(path_type=Path))
    def report(folder: Path) -> int:
        from loadgen.harness.report.page import write_report

        click.echo(write_report(folder))
        return 0

    @group.command(help="Compare the run in folder B with the one in A: figures, verdicts, settings, machines.")
    @click.argument("a", type=click.Path(path_type=Path))
    @click.argument("b", type=click.Path(path_type=Path))
    @click.option(
        "--fail-above",
        type=click.FloatRange(0),
        metavar="PERCENT",
        help="Exit code 1 if B is worse by more, or lacks a VALID test that A has.",
    )
    @click.option("--html", type=click.Path(path_type=Path), help="Write the comparison to this file too.")
    def compare(a: Path, b: Path, fail_above: float | None, html: Path | None) -> int:
        from loadgen.harness.report.compare import execute

        return execute(a, b, fail_above, html)

    return group


def _options(options: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _request(
    *,
    data: Path | None,
    quiet: bool,
    profile: str = "",
    round_: str = "v4.0",
    scenario: tuple[str, ...] = (),
    category: tuple[str, ...] = (),
    mode: str = "both",
    duration: float | None = None,
    qps: float | None = None,
    user_conf: Path | None = None,
    audit_conf: Path | None = None,
    workers: int = 1,
    worker_kind: str = "thread",
    replicas: int | None = None,
    ray_address: str = "local",
    **rest: Any,
) -> Request:
    """Options as click gives them, parsed once into the frozen request."""
    from loadgen.harness.layers import Overrides
    from loadgen.harness.run import Request
    from loadgen.harness.workers.pool import Workers
    from loadgen.settings import Mode

    modes = {
        "performance": (Mode.PerformanceOnly,),
        "accuracy": (Mode.AccuracyOnly,),
        "both": (Mode.PerformanceOnly, Mode.AccuracyOnly),
    }
    return Request(
        scenarios=scenario,
        categories=category,
        modes=modes[mode],
        profile=profile,
        data=data,
        quiet=quiet,
        workers=Workers(workers, worker_kind, replicas or 0, ray_address),
        overrides=Overrides(duration, qps, user_conf, audit_conf, round_),
        **rest,
    )
