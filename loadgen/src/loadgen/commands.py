"""`python -m loadgen`: a demonstration, explained settings, the rules, summaries of logs, and their compliance."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadgen.compliance import Runs, place, verify
from loadgen.conf import Source, explain, format_explanation, ignored
from loadgen.contracts import InputError, Ints, Responder
from loadgen.logs import in_folder, metrics_of, read_accuracy, read_detail
from loadgen.rules import load_round, round_names, table
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.testing import FakeLibrary

_EXITS = (
    "Exit codes: 0, done; 1, a demonstration is INVALID, or verify or submission finds that something does not pass; "
    "2, wrong usage or input that cannot be used."
)


class _Sleeper:
    """The demonstration's system: one worker that takes a millisecond for up to eight samples."""

    name = "a system that sleeps 1 ms a batch"

    def start(self, respond: Responder) -> None:
        self._respond = respond
        self._waiting: list[int] = []
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._work, daemon=True).start()

    def issue(self, ids: Ints, indices: Ints) -> None:
        with self._changed:
            self._waiting.extend([ids] if isinstance(ids, int) else (int(i) for i in ids))
            self._changed.notify()

    def flush(self) -> None: ...

    def stop(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                batch, self._waiting = self._waiting[:8], self._waiting[8:]
            time.sleep(0.001)
            self._respond.complete(batch)


def demo(seconds: float) -> int:
    """Every scenario against the sleeping system."""
    worst = 0
    for scenario in Scenario:
        settings = TestSettings(
            scenario=scenario,
            min_duration_ms=int(seconds * 1000),
            min_query_count=64,
            single_stream_expected_latency_ns=500_000,
            multi_stream_expected_latency_ns=500_000,
            server_target_qps=max(500.0, 700 / seconds),
            offline_expected_qps=8000.0,
        )
        result = run(_Sleeper(), FakeLibrary(), settings)
        head = result.headline
        shown = f"{head.name} {head.value:.4g} {head.unit}" if head else "-"
        print(f"{scenario.name:<13} {'VALID' if result.valid else 'INVALID':<8} {shown}")
        for reason in result.reasons:
            print(f"{'':<13} {' '.join(reason.split())}")
        worst |= not result.valid
    return int(worst)


def explain_conf(files: Sequence[Path], model: str, scenario: str, round_name: str) -> int:
    """Each effective value of a model and scenario, and the file and line that it is from."""
    rules = load_round(round_name)
    if model != "*" and model not in rules.models:
        near = difflib.get_close_matches(model, rules.models, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(rules.models)}"
        print(f"note: round {round_name} has no model {model!r}; {hint}", file=sys.stderr)
    sources: list[Source] = [rules.text(), *files]
    chosen = Scenario[scenario]
    base = TestSettings(revision=rules.revision)
    print(format_explanation(explain(sources, model, chosen, base), ignored(sources, model, chosen, base)))
    return 0


def summarize(folder: Path) -> int:
    """The verdict and figures of a log folder, ours or the official LoadGen's."""
    file = in_folder(folder, "mlperf_log_detail.txt")
    entries = read_detail(file)
    if not entries:
        raise InputError(f"{file} is empty: the test did not end; run it again")
    found = metrics_of(entries)
    for key in ("loadgen_version", "sut_name", "effective_scenario", "effective_test_mode", "result_validity"):
        print(f"{key}: {found.get(key, '-')}")
    for key, value in found.items():
        if key.startswith(("result_", "early_stopping")) and key != "result_validity":
            print(f"  {key} = {value}")
    for entry in entries:
        if entry.is_error:
            print(f"error {entry.key}: {entry.value}")
    print(f"accuracy log: {sum(1 for _ in read_accuracy(in_folder(folder, 'mlperf_log_accuracy.json')))} answers")
    return 0


def verify_logs(asked: Any) -> int:
    """Judge a compliance test by logs that any system wrote, and place it if that is asked for."""
    run = asked.run
    found = metrics_of(read_detail(run / "mlperf_log_detail.txt"))
    name = str(found.get("effective_scenario", "-"))
    if name not in Scenario.__members__:
        raise InputError(f"{run / 'mlperf_log_detail.txt'} names no scenario: give the folder of a test's logs")
    folders = [asked.reference / "performance" / "run_1", asked.reference / "performance"]
    performance = folders[0] if folders[0].is_dir() else folders[1]
    runs = Runs(performance, asked.reference / "accuracy", run)
    verdict = verify(load_round(asked.round), asked.model, asked.test, Scenario[name], runs)
    for check in verdict.checks:
        print(f"{name} {asked.test} {check.name}: {check}")
    print(f"{name} {asked.test}: {'PASS' if verdict.passed() else 'FAIL'}")
    if asked.output is not None:
        print(f"placed in {place(verdict, run, asked.output)}")
    return int(not verdict.passed())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadgen", description=__doc__, epilog=_EXITS)
    commands = parser.add_subparsers(dest="command", required=True)
    shown = commands.add_parser("demo", help="run each scenario against a built-in fake system")
    shown.add_argument("--seconds", type=float, default=2.0, help="how long each lasts (default 2)")
    explained = commands.add_parser("explain", help="print each effective value with where it came from")
    explained.add_argument("conf", nargs="*", type=Path, help="config files; later ones win")
    explained.add_argument("--model", default="*", help="model key, such as bert")
    explained.add_argument("--scenario", default="Server", choices=[s.name for s in Scenario])
    explained.add_argument("--round", default="v4.0")
    ruled = commands.add_parser("rules", help="print a round's rules")
    ruled.add_argument("round", nargs="?", default="v4.0", help=f"one of {', '.join(round_names())}")
    ruled.add_argument("--conf", action="store_true", help="as an mlperf.conf, which the official LoadGen reads")
    verified = commands.add_parser("verify", help="judge a compliance test by its logs, and place it for a submission")
    verified.add_argument("test", help="TEST01, TEST04, TEST05 or TEST06")
    verified.add_argument(
        "reference", type=Path, help="folder that holds performance (or performance/run_1) and accuracy"
    )
    verified.add_argument("run", type=Path, help="folder of the test's own logs")
    verified.add_argument("--model", required=True, help="model key, such as bert")
    verified.add_argument("--round", default="v4.0")
    verified.add_argument("--output", type=Path, help="folder that gets TESTnn with its files")
    commands.add_parser("submission", help="build, check and tabulate a submission (needs loadgen's extra harness)")
    summed = commands.add_parser("summarize", help="print the verdict of a log folder")
    summed.add_argument("logdir", type=Path)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code, see `_EXITS`."""
    asked: Any = _parser().parse_args(arguments)
    try:
        if asked.command == "demo":
            return demo(asked.seconds)
        if asked.command == "explain":
            return explain_conf(asked.conf, asked.model, asked.scenario, asked.round)
        if asked.command == "rules":
            rules = load_round(asked.round)
            print(rules.conf_text() if asked.conf else table(rules), end="")
            return 0
        if asked.command == "verify":
            return verify_logs(asked)
        return summarize(asked.logdir)
    except BrokenPipeError:  # whoever read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
        return 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
