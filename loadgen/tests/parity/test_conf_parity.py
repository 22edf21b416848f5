"""Config files, good and bad, read by the official wheel at hand and by `loadgen.compat`.

Compared for each drawn case: the return code, every attribute that the wheel shows, and what only
a run shows (logged config errors, `accuracy_log_sampling_target`, `sample_concatenate_permutation`,
the last one as 4 issued queries instead of 3). A file that strict reading accepts must mean the same.

For 6.0 files are read with `conf_type=2`: 1 counts its calls process-wide and loads built-in rules
first, 0 ignores the file for those rules.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlperf_loadgen
import pytest

from loadgen import compat
from loadgen.conf import ConfError, ConfWarning, settings_from
from loadgen.conf.keys import KEYS
from loadgen.rules import load_round, round_names
from loadgen.settings import Revision, Scenario, TestSettings

IS_4_0 = not hasattr(mlperf_loadgen.TestSettings, "accuracy_log_sampling_target")
REVISION = Revision.V4_0 if IS_4_0 else Revision.V6_0
ATTRIBUTES = {  # the wheel's name -> ours
    name: f"server_{name}" if name in ("ttft_latency", "tpot_latency") else name
    for name in dir(mlperf_loadgen.TestSettings)
    if not name.startswith("_") and name not in ("FromConfig", "scenario")
}
DOUBLES = {
    ours for theirs, ours in ATTRIBUTES.items() if isinstance(getattr(mlperf_loadgen.TestSettings(), theirs), float)
}
MODELS = ("bert", "3d-unet", "llama2-70b", "stable-diffusion-xl", "a.b", "*")
SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline", "server", "*", "")


@dataclass
class Report:
    """How many cases, which differ, and how often each trait was drawn."""

    cases: int = 0
    mismatches: list[str] = field(default_factory=list)
    coverage: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Reading:
    """What a reader makes of a sequence of files."""

    codes: tuple[int, ...]
    attributes: Mapping[str, str]
    errors: tuple[str, ...]
    sampling_target: int
    is_concatenated: bool


def run_cases(seed: int, count: int) -> Report:
    """Draw `count` cases from `seed` and read each both ways."""
    with tempfile.TemporaryDirectory() as folder:
        return _run_cases(seed, count, Path(folder))


def _run_cases(seed: int, count: int, folder: Path) -> Report:
    rng = random.Random(seed)
    report = Report()
    for number in range(count):
        model, scenario = rng.choice(MODELS), rng.choice(SCENARIOS)
        paths = [_drawn_path(rng, folder / f"{index}.conf") for index in range(rng.choice((1, 1, 2, 3)))]
        ours, theirs = (reading_of(lg, paths, model, scenario, folder) for lg in (compat, mlperf_loadgen))
        texts = [path.read_bytes() if path.is_file() else b"" for path in paths]
        if ours != theirs:
            report.mismatches.append(f"seed {seed} case {number}: {model} {scenario} {texts}\n {ours}\n {theirs}")
        if scenario in Scenario.__members__ and not _strict_agrees(paths, model, Scenario[scenario], theirs, report):
            report.mismatches.append(f"seed {seed} case {number}: strict reading of {model} {scenario} {texts}")
        report.cases += 1
        report.coverage.update([f"scenario {scenario!r}", f"code {theirs.codes[-1]}", f"files {len(paths)}"])
        report.coverage.update({f"key {key}" for key in _keys_in(texts)})
    return report


def reading_of(lg: Any, paths: list[Path], model: str, scenario: str, folder: Path) -> Reading:
    """Read by the wheel or by `loadgen.compat`, with a run of a few queries for what only a run shows."""
    settings = lg.TestSettings()
    if lg is compat:
        settings.revision = REVISION
    more = () if IS_4_0 else (2,)
    with _stderr_in(folder / "stderr.txt"):
        codes = tuple(settings.FromConfig(str(path), model, scenario, *more) for path in paths)
        attributes = _attributes(settings, ATTRIBUTES)
        issued = _short_run(lg, settings, folder)
    # The wheel's log thread writes what it finds before the test opens its log to stderr.
    entries = _entries(folder / "stderr.txt") + _entries(folder / "mlperf_log_detail.txt")
    return Reading(
        codes,
        {ATTRIBUTES[name]: value for name, value in attributes.items()},
        tuple(entry["value"] for entry in entries if entry["key"] == "error_invalid_config"),
        next(e["value"] for e in entries if e["key"] == "requested_accuracy_log_sampling_target"),
        issued == 4,  # 3 queries are asked for; equal issue fills up a set of 4 samples
    )


@contextmanager
def _stderr_in(path: Path) -> Iterator[None]:
    """Send the process's stderr to a file, C++ included."""
    kept = os.dup(2)
    try:
        with path.open("wb") as file:
            os.dup2(file.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _entries(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines()
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in lines if line.startswith(":::MLLOG ")]


def _attributes(settings: Any, names: Iterable[str]) -> dict[str, str]:
    return {name: _comparable(getattr(settings, name), ATTRIBUTES.get(name, name)) for name in names}


def _comparable(value: Any, ours: str) -> str:
    """Enums by number, doubles to the last bit, nan equal to itself."""
    if hasattr(value, "value"):
        return f"mode {value.value}"
    return float(value).hex() if ours in DOUBLES else str(value)


def _short_run(lg: Any, settings: Any, folder: Path) -> int:
    """Run 3 Server queries in no time, whatever the file asked for; how many are issued shows equal issue."""
    settings.scenario = lg.TestScenario.Server
    settings.mode = lg.TestMode.PerformanceOnly
    settings.server_target_qps, settings.min_query_count = 1e6, 3
    settings.server_target_latency_percentile = 0.99  # a nan would not be JSON in the log
    zeros = ("min_duration_ms", "max_duration_ms", "max_query_count", "server_max_async_queries")
    flags = ("performance_issue_unique", "performance_issue_same", "use_token_latencies", "test05")
    more = ("performance_sample_count_override", "accuracy_log_probability", "accuracy_sample_count_override")
    for name in (*zeros, *more):
        if hasattr(settings, name):
            setattr(settings, name, 0)
    for name in (*flags, "print_timestamps", "infer_token_latencies", "server_coalesce_queries"):
        setattr(settings, name, False)
    issued = []

    def issue(samples: Any) -> None:
        issued.extend(samples)
        answers = [lg.QuerySampleResponse(sample.id, 0, 0) for sample in samples]
        lg.QuerySamplesComplete(answers)

    logs = lg.LogSettings()
    output = lg.LogOutputSettings()
    output.outdir = str(folder)
    logs.log_output, logs.enable_trace = output, False
    sut = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(4, 4, lambda samples: None, lambda samples: None)
    lg.StartTestWithLogSettings(sut, library, settings, logs, str(folder / "no audit.config"))
    lg.DestroyQSL(library)
    lg.DestroySUT(sut)
    return len(issued)


def _strict_agrees(paths: list[Path], model: str, scenario: Scenario, theirs: Reading, report: Report) -> bool:
    """Whether strict reading refuses these files, or means what the wheel means."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConfWarning)
            settings = settings_from(paths, model, scenario, TestSettings(revision=REVISION))
    except ConfError:
        return True
    report.coverage["strict accepts"] += 1
    is_same = _attributes(settings, ATTRIBUTES.values()) == theirs.attributes and not theirs.errors
    hidden = settings.accuracy_log_sampling_target, settings.sample_concatenate_permutation
    return is_same and hidden == (theirs.sampling_target, theirs.is_concatenated)


# Drawing.

HIDDEN = [("*", "sample_concatenate_permutation"), ("*", "accuracy_log_sampling_target")]  # drawn more often

INTEGERS = ("0", "1", "2", "3", "8", "64", "600000", "13281865557512327830", "18446744073709551615")
DECIMALS = ("0.5", "99", "99.9", "15.7", "1.0", "1e3", "2.5e-3", ".5", "5.", "1500.25", "10")
WARTS = """
-1 010 08 0x10 0X1f +7 -0 00 1e400 1e-400 inf -INF infinity nan -nan nan(12) 0x1p4 0x.8 0x1p9999 -0x10
2147483647 2147483648 4294967301 18446744073710 18446744073709551616 99999999999999999999
-99999999999999999999 100000000000000000000000000000 0000000000000000000000000000017
"""
NO_NUMBERS = "1_0 1_000 5#five 7//8 3; 5% 4ms 1,5 0x 0b11 + - . e5 1e 1e+ true nan( 0x1p 1.5.2 --1 1f \uff11 5\0"
BAD_LINES = [
    *"""
#foo
#foo bar
#foo = 1
# foo bar
#
key
key =
key = # x
key # x
key x
key x = 5
= = 3
k = 5 = 6
k = 5 # six
*.*.min_query_count=5
*.*.min_query_count =5
*.*.min_query_count= 5
*.*.min_query_count = 1 2
*.*.min_query_count = 1 2 3
*.*.min_query_count = 1 # one
*.*.min_query_count = 1#one
*.*.min_query_count = 010
*.*.min_query_count = 0x1F
*.*.min_query_count = 1_000
*.*.min_query_count = 1 x
*.*.min_querry_count = 3
*.server.min_query_count = 4
min_query_count = 4
*.min_query_count = 4
..min_query_count = 9
*.*.server_target_qps = 3
*.*.mode = 4
*.*.mode = -1
*.Server.target_duration = 0
*.Offline.target_latency_percentile = 90
""".strip().split("\n"),
    "\ufeff*.*.min_query_count = 6",
    "*.*.min_query_count\xa0=\xa07",
]


def _drawn_path(rng: random.Random, path: Path) -> Path:
    """A config file; now and then a missing one or a folder."""
    if rng.random() < 0.03:
        return rng.choice((path.parent, path.parent / "missing.conf"))
    taste = rng.choice(("good", "good", "good", "warts", "warts", "bad"))
    lines = [_drawn_line(rng, taste) for _ in range(rng.choice((1, 4, 12, 40)))]
    lines += [f"{rng.choice(lines).partition('=')[0]}= {rng.choice(INTEGERS)}" for _ in range(rng.choice((0, 0, 1, 3)))]
    end = rng.choice(("\n", "\n", "\n", "\r\n", " \n", "\n\n"))
    path.write_bytes((end.join(lines) + rng.choice(("", "\n"))).encode() + rng.choice((*[b""] * 9, b"# \xff\n")))
    return path


def _drawn_line(rng: random.Random, taste: str) -> str:
    if taste == "bad" and rng.random() < 0.2:
        return rng.choice(BAD_LINES)
    if rng.random() < 0.1:
        return rng.choice(("", "# a comment", "   ", "\t# two = words x"))
    lookup, name = rng.choice([*KEYS, *HIDDEN * 3])
    scopes = SCENARIOS if taste == "bad" else SCENARIOS[:4]
    scope = rng.choice((lookup, lookup, "*", rng.choice(scopes)))
    line = f"{rng.choice(('*', '*', rng.choice(MODELS)))}.{scope}.{name}"
    gap = rng.choice((" ", " ", "  ", "\t", "\v", "\f"))
    return f"{rng.choice(('', '', ' '))}{line}{gap}={gap}{_drawn_value(rng, KEYS[lookup, name].kind, taste)}"


def _drawn_value(rng: random.Random, kind: str, taste: str) -> str:
    if taste != "good" and rng.random() < 0.3:
        return rng.choice((WARTS + NO_NUMBERS if taste == "bad" else WARTS).split())
    if kind.startswith("is "):
        return rng.choice(("0", "1", "1", "2")) if taste != "good" else rng.choice(("0", "1"))
    if kind == "mode":
        return rng.choice("0123")
    return rng.choice(INTEGERS + DECIMALS if kind in ("double", "percent") or taste != "good" else INTEGERS)


def _keys_in(texts: list[bytes]) -> set[str]:
    names = {name for _, name in KEYS}
    return {name for text in texts for name in names if f".{name} ".encode() in text.replace(b"\t", b" ")}


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_drawn_files_read_as_officially(seed: int) -> None:
    report = run_cases(seed, 500)
    assert report.mismatches == []
    assert {f"key {name}" for _, name in KEYS} <= set(report.coverage)
    assert {"code 0", "code -22", "code -2", "strict accepts"} <= set(report.coverage)


@pytest.mark.parametrize("name", round_names())
def test_round_as_mlperf_conf_reads_as_officially(name: str, tmp_path: Path) -> None:
    rules = load_round(name)
    path = tmp_path / "mlperf.conf"
    path.write_text(rules.conf_text())
    for model in rules.models:
        for scenario in Scenario:
            theirs = reading_of(mlperf_loadgen, [path], model, scenario.name, tmp_path)
            assert theirs.errors == ()
            assert reading_of(compat, [path], model, scenario.name, tmp_path) == theirs
            if IS_4_0:  # 6.0 takes no seeds from a file
                ours = replace(rules.settings(model, scenario), revision=REVISION)
                assert _attributes(ours, ATTRIBUTES.values()) == theirs.attributes
                assert ours.sample_concatenate_permutation == theirs.is_concatenated
