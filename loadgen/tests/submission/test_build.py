"""From run folders to a tree: what is copied, shortened, inferred, asked for and refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadgen.conf import settings_from
from loadgen.errors import InputError
from loadgen.harness.submission import main
from loadgen.rules import load_round
from loadgen.settings import Mode, Scenario, TestSettings
from loadgen.submission.build import Order, build
from loadgen.submission.check import check
from loadgen.submission.describe import complete, found_by
from loadgen.submission.requirements import Requirements
from loadgen.submission.runs import read_run
from loadgen.submission.truncate import GAP, VIEWABLE, shorten_tree

TOLD = {
    "division": "closed",
    "submitter": "Org",
    "status": "available",
    "system_type": "datacenter",
    "system_name": "box",
    "host_memory_configuration": "2x 16 GB",
    "host_networking": "Ethernet",
    "host_networking_topology": "N/A",
    "host_network_card_count": "1",
    "cooling": "air",
}
WEIGHTS = {
    "input_data_types": "fp32",
    "retraining": "no",
    "starting_weights_filename": "weights.bin",
    "weight_data_types": "fp32",
    "weight_transformations": "none",
}


@pytest.fixture(scope="session")
def ran(small: Path) -> Path:
    """The run that the small tree was built from."""
    return small.parent / "run"


def order(output: Path, code: Path, runs: list[Path], **told: str) -> Order:
    read = [read_run(folder) for folder in runs]
    description = complete(Requirements(), {**TOLD, **told}, found_by(read))
    return Order(output, "closed", "Org", "box", description, "abacus", WEIGHTS, code)


def everything(tree: Path) -> dict[str, bytes]:
    return {str(file.relative_to(tree)): file.read_bytes() for file in sorted(tree.rglob("*")) if file.is_file()}


def test_the_same_runs_give_the_same_bytes(ran: Path, small: Path, code: Path, tmp_path: Path) -> None:
    made = [build(order(tmp_path / name, code, [ran]), [read_run(ran)]) for name in ("a", "b")]
    assert [path.name for path in made[0]] == ["Server", "Offline"]
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    assert everything(tmp_path / "a").keys() == everything(small).keys()


def test_a_log_is_cut_to_its_ends_and_its_hash_is_the_whole_ones(small: Path, ran: Path) -> None:
    whole = (ran / "Offline/accuracy/mlperf_log_accuracy.json").read_bytes()
    folder = small / "closed/Org/results/box/resnet/Offline/accuracy"
    assert (folder / "mlperf_log_accuracy.json").read_bytes() == whole[:VIEWABLE] + GAP + whole[-VIEWABLE:]
    assert folder.joinpath("accuracy.txt").read_text().splitlines()[-1] == f"hash={hashlib.sha256(whole).hexdigest()}"


def test_a_tree_with_whole_logs_is_shortened_once(small: Path, ran: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(small, tmp_path / "tree"))
    folder = tree / "closed/Org/results/box/resnet/Offline/accuracy"
    for name in ("mlperf_log_accuracy.json", "accuracy.txt"):
        shutil.copyfile(ran / "Offline/accuracy" / name, folder / name)
    assert {finding.rule for finding in check(tree).findings} == {"hash-missing", "accuracy-log-long"}
    words = ["submission", "truncate", str(tree), "--backup"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    assert everything(tree) == everything(small)
    kept = tmp_path / "whole" / folder.relative_to(tree) / "mlperf_log_accuracy.json"
    assert kept.read_bytes() == (ran / "Offline/accuracy/mlperf_log_accuracy.json").read_bytes()
    assert list(shorten_tree(tree, tmp_path / "none")) == []
    shutil.copyfile(kept, folder / kept.name)
    assert main([*words, str(tmp_path / "whole")]) == 2
    assert (folder / kept.name).read_bytes() == kept.read_bytes()


def test_user_conf_says_what_the_run_changed(ran: Path, small: Path) -> None:
    """The official rules and this file together give the run's settings."""
    conf = small / "closed/Org/measurements/box/resnet/Server/user.conf"
    assert "# By command line:\nresnet50.Server.target_qps = 2\n" in conf.read_text()
    base = TestSettings(scenario=Scenario.Server, mode=Mode.PerformanceOnly)
    rules = load_round("v4.0")
    read = settings_from([rules.text(), conf], "resnet50", Scenario.Server, base)
    saved = json.loads((ran / "results.json").read_text())["tests"][0]["settings"]
    assert {name: getattr(value, "name", value) for name, value in vars(read).items()} == saved


def test_models_of_one_code_share_it(llama: Path) -> None:
    code = llama / "closed/Org/code"
    assert [place.name for place in sorted(code.iterdir())] == ["llama2-70b-99", "llama2-70b-99.9"]
    assert (code / "llama2-70b-99.9").read_text() == "llama2-70b-99\n"


def test_what_nobody_told_is_asked_for_and_nothing_is_invented(ran: Path) -> None:
    told = {name: value for name, value in TOLD.items() if name not in ("cooling", "system_name")}
    with pytest.raises(InputError, match=r"--set system_name=.*\n.*--set cooling=.*such as air") as raised:
        complete(Requirements(), told, found_by([read_run(ran)]))
    assert "host_processor" not in str(raised.value)
    with pytest.raises(InputError, match="no field colour"):
        complete(Requirements(), {**TOLD, "colour": "red"}, found_by([read_run(ran)]))


def test_all_that_is_missing_is_said_at_once(
    ran: Path, code: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {name: value for name, value in {**TOLD, **WEIGHTS}.items() if name not in ("cooling", "retraining")}
    words = ["submission", "build", str(ran), "--output", str(tmp_path / "tree"), "--submitter", "Org", "--trial"]
    words += ["--system", "box", "--code", str(code), *(f"--set={name}={value}" for name, value in told.items())]
    assert main(words) == 2
    assert re.search(r"--set cooling=\.\.\..*\n  --set retraining=\.\.\.", capsys.readouterr().err)


def test_runs_of_two_systems_are_no_one_system(ran: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(ran, tmp_path / "other"))
    data = json.loads((ran / "results.json").read_text())
    data["system"]["host_memory_capacity"] = "1 GB"
    (other / "results.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="host_memory_capacity: 1 GB, 512 GB"):
        found_by([read_run(ran), read_run(other)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"division": "clsoed"}, "choose open, closed, network"),
        ({"submitter": "My Org"}, "--submitter 'My Org'"),
        ({"system": "../x"}, "--system"),
        ({"measurements": {}}, "--set retraining=..."),
        ({"code": Path("nowhere")}, "--code nowhere"),
        ({"ratios": (0.9,)}, "offers 0.99 in datacenter"),
    ],
)
def test_an_order_that_cannot_be_is_refused_before_anything_is_written(
    ran: Path, code: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    asked = replace(order(tmp_path / "tree", code, [ran]), **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError) as raised:
        build(asked, [read_run(ran)])
    assert said in str(raised.value)
    assert not (tmp_path / "tree").exists()


def test_what_is_there_is_not_overwritten(ran: Path, code: Path, tmp_path: Path) -> None:
    asked = order(tmp_path / "tree", code, [ran])
    build(asked, [read_run(ran)])
    with pytest.raises(InputError, match="is there already"):
        build(asked, [read_run(ran)])
    with pytest.raises(InputError, match="of several runs"):
        build(replace(asked, output=tmp_path / "other"), [read_run(ran), read_run(ran)])


def test_another_description_of_the_same_system_is_refused(ran: Path, llama: Path, code: Path, tmp_path: Path) -> None:
    more = llama.parent / "run"
    build(order(tmp_path / "tree", code, [ran]), [read_run(ran)])
    with pytest.raises(InputError, match=r"box\.json says cooling = 'air', and now it is 'liquid'"):
        build(order(tmp_path / "tree", code, [more], cooling="liquid"), [read_run(more)])
    build(order(tmp_path / "tree", code, [more]), [read_run(more)])
    assert len(check(tmp_path / "tree").rows) == 6
    assert check(tmp_path / "tree").passes


def test_a_run_without_an_accuracy_test_says_which(ran: Path, code: Path, tmp_path: Path) -> None:
    half = Path(shutil.copytree(ran, tmp_path / "half"))
    data = json.loads((ran / "results.json").read_text())
    data["tests"] = [test for test in data["tests"] if test["folder"] != "Offline/accuracy"]
    (half / "results.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="Offline has no accuracy test"):
        build(order(tmp_path / "tree", code, [half]), [read_run(half)])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 2}'])
def test_a_damaged_results_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=r"results\.json"):
        read_run(tmp_path)


def test_scenarios_are_inferred_on_edge_only(edge: Path, code: Path, tmp_path: Path) -> None:
    run = edge.parent / "run"
    results = edge / "closed/Org/results/box/resnet"
    assert sorted(place.name for place in results.iterdir()) == ["MultiStream", "Offline", "SingleStream"]
    asked = order(tmp_path / "tree", code, [run], system_type="datacenter,edge")
    assert [path.name for path in build(asked, [read_run(run)])] == ["SingleStream"]
    assert any("Offline is required on datacenter,edge and was not run" in note for note in asked.notes)


def test_a_stand_ins_run_is_built_on_trial_only(
    ran: Path, code: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mini = Path(shutil.copytree(ran, tmp_path / "mini"))
    data = json.loads((ran / "results.json").read_text())
    (mini / "results.json").write_text(json.dumps({**data, "shortfalls": ["the mini profile is small"]}))
    fields = [f"--set={name}={value}" for name, value in {**TOLD, **WEIGHTS}.items()]
    words = ["submission", "build", str(mini), "--output", str(tmp_path / "tree"), "--submitter", "Org"]
    words += ["--system", "box", "--code", str(code), *fields]
    assert main(words) == 2
    assert "the mini profile is small" in capsys.readouterr().err
    assert main([*words, "--trial"]) == 0
    assert check(tmp_path / "tree").passes


def test_a_log_of_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """By its own count: of 64 MB a few are read at a time."""
    import tracemalloc

    log = tmp_path / "closed/Org/results/box/resnet/Offline/accuracy/mlperf_log_accuracy.json"
    log.parent.mkdir(parents=True)
    block = np.random.default_rng(1).bytes(1 << 20)
    with log.open("wb") as file:
        for _ in range(64):
            file.write(block)
    tracemalloc.start()
    assert list(shorten_tree(tmp_path, tmp_path / "whole")) == [log]
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert log.stat().st_size == 2 * VIEWABLE + len(GAP)
