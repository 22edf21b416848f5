"""The rules built into the official release 6, applied by its wheel and by `loadgen.compat.release_6`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import official
import pytest

from loadgen.rules import load_round
from loadgen.settings import Revision, Scenario

pytestmark = pytest.mark.skipif(official.REVISION is Revision.V4_0, reason="release 4.0 has no rules built in")

# Every model that a benchmark of this project has, dropped ones too.
OURS = "resnet50 bert retinanet 3d-unet dlrm-v2 rnnt gptj stable-diffusion-xl llama2-70b llama2-70b-interactive"
MODELS = [*OURS.split(), "*", "wan-2"]
NAMES = sorted(
    name
    for name in dir(official.lg.TestSettings())
    if name[0] != "_" and name not in ("FromConfig", "scenario", "mode")
)
# What one process reads, call by call: (file, conf_type).
SEQUENCES = [
    [("user.conf", 1)],
    [("user.conf", 0)],
    [("user.conf", 2)],
    [("user.conf", 1), ("user.conf", 1), ("user.conf", 0), ("user.conf", 2)],
    [("user.conf", 2), ("user.conf", 1)],
    [("user.conf", 0), ("user.conf", 1)],
    [("none.conf", 1), ("user.conf", 1)],
    [("bad.conf", 1), ("user.conf", 1)],
    [("bad.conf", 0)],
    [("user.conf", 3), ("user.conf", 1)],
]
# Reads the files and runs a short test: prints what each call returned and set, and the errors in the log.
_SCRIPT = """
import importlib, json, sys
module, folder, model, scenario, calls, names = sys.argv[1:]
lg = importlib.import_module(module)
found = []
for file, conf_type in json.loads(calls):
    settings = lg.TestSettings()
    code = settings.FromConfig(f"{folder}/{file}", model, scenario, conf_type)
    found.append([code, [getattr(settings, name) for name in json.loads(names)]])
settings = lg.TestSettings()
settings.scenario, settings.min_duration_ms, settings.min_query_count = lg.TestScenario.Offline, 0, 3
log, output = lg.LogSettings(), lg.LogOutputSettings()
output.outdir, log.log_output, log.enable_trace = folder, output, False
log.log_output = output
def issue(samples):
    lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0) for s in samples])
system, library = lg.ConstructSUT(issue, lambda: None), lg.ConstructQSL(3, 3, lambda i: None, lambda i: None)
lg.StartTestWithLogSettings(system, library, settings, log, folder + "/none")
print(json.dumps(found))
"""


def read(
    module: str, folder: Path, model: str, scenario: str, calls: list[tuple[str, int]]
) -> tuple[object, list[str]]:
    """What a process of its own makes of these calls, and the config errors that it logs.

    What the wheel finds before a test opens its log goes to stderr.
    """
    folder.mkdir(parents=True)
    (folder / "user.conf").write_text(
        "*.Server.target_qps = 77\n*.*.min_query_count = 5\n*.*.qsl_rng_seed = 9\n*.*.accuracy_log_rng_seed = 4\n"
        "*.Offline.sample_concatenate_permutation = 0\n*.Server.ttft_latency = 3\n"
    )
    (folder / "bad.conf").write_text("*.*.min_query_count = many\n*.Server.target_qps == 5\n")
    command = [
        sys.executable,
        "-c",
        _SCRIPT,
        module,
        str(folder),
        model,
        scenario,
        json.dumps(calls),
        json.dumps(NAMES),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [*done.stderr.splitlines(), *(folder / "mlperf_log_detail.txt").read_text().splitlines()]
    entries = [official.parse(line.removeprefix(":::MLLOG ")) for line in lines if line.startswith(":::MLLOG ")]
    errors = [str(e["value"]).replace(str(folder), "") for e in entries if e["key"] == "error_invalid_config"]
    return json.loads(done.stdout.splitlines()[-1]), sorted(errors)


@pytest.mark.parametrize("calls", SEQUENCES, ids=lambda calls: ", ".join(f"{file} {kind}" for file, kind in calls))
def test_files_of_each_kind_are_read_as_officially(calls: list[tuple[str, int]], tmp_path: Path) -> None:
    theirs = read("mlperf_loadgen", tmp_path / "official", "bert", "Server", calls)
    assert read("loadgen.compat.release_6", tmp_path / "ours", "bert", "Server", calls) == theirs


@pytest.mark.parametrize("model", MODELS)
def test_the_rules_of_each_model_are_the_official_ones(model: str) -> None:
    """Every attribute, for each scenario."""
    from loadgen.compat import config, release_6

    for scenario in Scenario:
        theirs, ours = official.lg.TestSettings(), release_6.TestSettings()
        for settings in (theirs, ours):
            assert settings.FromConfig("", model, scenario.name, 0) == 0
        differing = {n: (getattr(theirs, n), getattr(ours, n)) for n in NAMES if getattr(theirs, n) != getattr(ours, n)}
        assert not differing, f"{model} {scenario.name}"
    assert load_round("v6.1").seeds["qsl_rng_seed"] == theirs.qsl_rng_seed
    config.errors_so_far()  # several files were read, which the next test of this process would log
