"""Trees that each break one rule, and what is said of them: here, and by the official checker."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen.submission.catalogue import RULES
from loadgen.submission.check import Checked, check
from loadgen.submission.official import verdicts

RECORDED = Path(__file__).with_name("official_verdicts.json")
"""What the official checker said of each tree; written by `pytest --official FOLDER`."""
_BROKEN = runpy.run_path(str(Path(__file__).with_name("broken.py")))
CASES, described, log = (_BROKEN[name] for name in ("CASES", "described", "log"))
MIXED = runpy.run_path(str(Path(__file__).with_name("mixed.py")))["CASES"]
NETWORKED = "sut-name"
"""The one rule whose tree is made by its own test: it is of another division."""


@pytest.fixture
def broken(request: pytest.FixtureRequest, copied: Callable[[Path], Path]) -> Path:
    tree, _, change = CASES[request.param]
    copy = copied(request.getfixturevalue(tree))
    change(copy)
    return copy


@pytest.mark.parametrize(("broken", "name"), [(name, name) for name in CASES], indirect=["broken"], ids=list(CASES))
def test_one_defect_is_one_finding(broken: Path, name: str, request: pytest.FixtureRequest) -> None:
    checked = check(broken)
    assert {finding.rule for finding in checked.findings} == {CASES[name][1]}
    assert checked.passes is RULES[CASES[name][1]].is_warning
    if official := request.config.getoption("--official", default=None):
        record(name, officially(official, broken))
    assert predicted(checked) == json.loads(RECORDED.read_text())[name]


@pytest.mark.parametrize("name", list(MIXED))
def test_what_the_official_checker_makes_of_it(
    name: str, request: pytest.FixtureRequest, copied: Callable[[Path], Path]
) -> None:
    tree, rules, change = MIXED[name]
    copy = copied(request.getfixturevalue(tree))
    change(copy)
    checked = check(copy)
    assert {finding.rule for finding in checked.findings} == rules
    if official := request.config.getoption("--official", default=None):
        record(name, officially(official, copy))
    assert predicted(checked) == json.loads(RECORDED.read_text())[name]


@pytest.mark.parametrize("tree", ["small", "edge", "streams", "llama", "images", "opened", "powered"])
def test_a_whole_tree_passes_both(tree: str, request: pytest.FixtureRequest) -> None:
    checked = check(request.getfixturevalue(tree))
    assert checked.findings == []
    if official := request.config.getoption("--official", default=None):
        record(f"whole: {tree}", officially(official, request.getfixturevalue(tree)))
    assert predicted(checked) == json.loads(RECORDED.read_text())[f"whole: {tree}"]
    assert predicted(checked)["passes"] is True


def test_every_rule_is_broken_once() -> None:
    assert {rule for _, rule, _ in CASES.values()} | {NETWORKED} == set(RULES)
    assert len(CASES) > 100


def test_a_system_over_a_network_says_so_in_its_name(
    small: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(small / "closed", tree / "network")
    fields = "network_type network_media network_rate nic_loadgen number_nic_loadgen net_software_stack_loadgen"
    fields += " network_protocol number_connections nic_sut number_nic_sut net_software_stack_sut network_topology"
    described(
        "network/Org/systems/box.json", division="network", is_network="true", **dict.fromkeys(fields.split(), "x")
    )(tree)
    assert {finding.rule for finding in check(tree).findings} == {NETWORKED}
    for file in tree.rglob("performance/run_1/mlperf_log_detail.txt"):
        log(str(file.relative_to(tree)), sut_name="Network SUT, Abacus")(tree)
    assert check(tree).findings == []


def predicted(checked: Checked) -> dict[str, Any]:
    """Ours of the official verdicts, in the form that the official ones are recorded in."""
    said = verdicts(checked)
    return {"passes": said.passes, "stops": bool(said.stops), "results": {} if said.stops else said.results}


def officially(tools: Path, tree: Path) -> dict[str, Any]:
    """What the official checker says of a tree: its own words, parsed."""
    table = tree.parent / "official.csv"
    command = [
        sys.executable,
        str(tools.absolute() / "submission_checker.py"),
        "--input",
        str(tree),
        "--csv",
        str(table),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tools, env={**os.environ, "TZ": "UTC"}
    )
    said = re.findall(r"(?:INFO|ERROR)\] (Results|NoResults) (\S+)(?: .*)?$", done.stderr, re.M)
    if "SUMMARY" not in done.stderr:
        return {"passes": False, "stops": True, "results": {}}
    results = {path: kind == "Results" for kind, path in said}
    return {"passes": done.returncode == 0, "stops": False, "results": dict(sorted(results.items()))}


def record(name: str, said: dict[str, Any]) -> None:
    known = json.loads(RECORDED.read_text()) if RECORDED.is_file() else {}
    RECORDED.write_text(json.dumps({**known, name: said}, indent=1, sort_keys=True) + "\n")
