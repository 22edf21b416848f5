"""The submission checker of release 6 on logs of its wheel and of `loadgen.compat.release_6`: it says the same.

`--checker FOLDER`: tools/submission of the official suite's main branch, of August 2026 or later (it needs pyyaml).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import official
import pytest

from loadgen.rules import load_round
from loadgen.settings import Revision

pytestmark = pytest.mark.skipif(official.REVISION is Revision.V4_0, reason="the checker reads logs of release 6")

ROUND = load_round("v6.1")
SECONDS = 1  # of a performance test, where 600 are asked: the checker refuses them, for that alone
RESULTS = [  # system, result's folder, scenario; model in the config, and scenario there
    ("edge", "resnet", "SingleStream", "resnet50", "SingleStream"),
    ("edge", "resnet", "MultiStream", "resnet50", "MultiStream"),
    ("edge", "resnet", "Offline", "resnet50", "Offline"),
    ("edge", "bert-99", "SingleStream", "bert", "SingleStream"),
    ("edge", "3d-unet-99.9", "Offline", "3d-unet", "Offline"),
    ("edge", "stable-diffusion-xl", "SingleStream", "stable-diffusion-xl", "SingleStream"),
    ("datacenter", "llama2-70b-99.9", "Offline", "llama2-70b", "Offline"),
    ("datacenter", "llama2-70b-99.9", "Server", "llama2-70b", "Server"),
    ("datacenter", "llama2-70b-99.9", "Interactive", "llama2-70b-interactive", "Server"),
]
# A submission's script: module, folder, model, scenario, mode, samples of the data set.
_SCRIPT = """
import importlib, sys
from array import array
module, folder, model, scenario, mode, count = sys.argv[1:]
lg, data = importlib.import_module(module), array("q", range(int(count)))
settings, log, output = lg.TestSettings(), lg.LogSettings(), lg.LogOutputSettings()
settings.scenario, settings.mode = getattr(lg.TestScenario, scenario), getattr(lg.TestMode, mode)
settings.FromConfig(folder + "/user.conf", model, scenario)
output.outdir, log.enable_trace, log.log_output = folder, False, output
log.log_output = output
def answer(sample, *tokens):
    return lg.QuerySampleResponse(sample.id, data.buffer_info()[0] + 8 * sample.index, 8, *tokens)
def issue(samples):
    if settings.use_token_latencies:
        lg.FirstTokenComplete([answer(sample) for sample in samples])
    lg.QuerySamplesComplete([answer(sample, 3) for sample in samples])
library = lg.ConstructQSL(len(data), len(data), lambda i: None, lambda i: None)
lg.StartTestWithLogSettings(lg.ConstructSUT(issue, lambda: None), library, settings, log, folder + "/none")
"""
_USER_CONF = f"""*.*.min_duration = {1000 * SECONDS}
*.Server.target_qps = 20000
*.Offline.target_qps = 100
*.SingleStream.target_latency = 1
*.MultiStream.target_latency = 1
"""


def submission(root: Path, module: str) -> None:
    """A tree of the round's form, with the logs of one load generator."""
    fields = dict.fromkeys(ROUND.submission.system_fields, "1")
    for system in ("edge", "datacenter"):
        own = {"division": "closed", "status": "available", "submitter": "Us", "system_type": system}
        _write(root / "systems" / f"{system}.json", json.dumps({**fields, **own}))
    _write(root / "src" / "code.py", "pass\n")
    for system, folder, name, model, scenario in RESULTS:
        result = root / "results" / system / folder / name
        rules = ROUND.model(model.removesuffix("-interactive"))
        names = [name for _, name, _, _ in Formatter().parse(rules.accuracy_line) if name]
        line = rules.write_accuracy({**dict.fromkeys(names, 1.0), **rules.targets})
        _write(result / "measurements.json", json.dumps(dict.fromkeys(ROUND.submission.implementation_fields, "x")))
        _write(result / "README.md", "None.\n")
        _write(result / "user.conf", _USER_CONF)
        for part, mode in (("performance/run_1", "PerformanceOnly"), ("accuracy", "AccuracyOnly")):
            _write(result / part / "user.conf", _USER_CONF)
            words = (module, str(result / part), model, scenario, mode, str(rules.dataset_size))
            subprocess.run([sys.executable, "-c", _SCRIPT, *words], check=True, capture_output=True)
        log = result / "accuracy" / "mlperf_log_accuracy.json"
        log.write_text(log.read_text()[:4000])
        _write(result / "accuracy" / "accuracy.txt", f"{line}\nhash={'0' * 64}\n")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def verdicts(checker: Path, root: Path) -> Iterator[str]:
    """What the checker says of these logs, without what was measured."""
    command = [sys.executable, "-m", "submission_checker.main", "--input", str(root), "--version", ROUND.name]
    environment = {**os.environ, "PYTHONPATH": str(checker)}
    words = [*command, "--csv", str(root / "summary.csv"), "--submission-exceptions"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr[-2000:]
    for line in done.stderr.splitlines():
        said = re.search(r"(ERROR|WARNING|passed for)", line) and "TEST0" not in line
        if said:
            yield re.sub(r"^\[[^\]]*\.py:\d+ |found=\d+", "", line).replace(str(root), "")


def test_the_checker_of_release_6_says_the_same_of_both(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    checker = request.config.getoption("--checker")
    if checker is None:
        pytest.skip("give the official checker by --checker FOLDER")
    said = {}
    for module in ("mlperf_loadgen", "loadgen.compat.release_6"):
        submission(tmp_path / module / "closed" / "Us", module)
        said[module] = list(verdicts(Path(checker).resolve(), tmp_path / module))
    theirs, ours = said.values()
    assert ours == theirs
    assert sum("All accuracy checks" in line for line in ours) == len(RESULTS)
    assert sum("Test duration less than 600s" in line for line in ours) == len(RESULTS)
