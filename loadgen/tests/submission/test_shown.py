"""What a check shows: at every level of the tree, in every form, always the same bytes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import openpyxl
import pytest

from loadgen.harness.submission import main
from loadgen.rules import load_round, round_names
from loadgen.submission import page, shown, table
from loadgen.submission.catalogue import RULES
from loadgen.submission.check import check
from loadgen.submission.official import differences

DETAIL = "closed/Org/results/box/resnet/Offline/performance/run_1/mlperf_log_detail.txt"


@pytest.fixture
def short(copied: Callable[[Path], Path], small: Path) -> Path:
    """A tree whose Offline run lasted a second."""
    tree = copied(small)
    text = (tree / DETAIL).read_text()
    (tree / DETAIL).unlink()
    (tree / DETAIL).write_text(re.sub(r'("effective_min_duration_ms", "value": )\d+', r"\g<1>1000", text))
    return tree


def test_the_text_says_where_what_and_how_to_fix_it(short: Path) -> None:
    assert shown.text(check(short)).splitlines() == [
        f"error min-duration: {DETAIL}: effective_min_duration_ms",
        "  The run is set to last as long as the round says.",
        "  observed: 1000",
        "  required: >= 600000",
        "  to fix: Remove min_duration from user.conf.",
        "refused  closed/Org/results/box/resnet/Offline  40.8918",
        "ok       closed/Org/results/box/resnet/Server  1.97634",
        "2 results, 1 error, 0 warnings: the submission does not pass by the rules of v4.0",
    ]


def test_the_official_verdict_and_where_the_strict_one_differs(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submission", "check", str(short)]) == 1
    capsys.readouterr()
    assert main(["submission", "check", "--as-official-v4.0", str(short)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Results   closed/Org/results/box/resnet/Offline",
        "Results   closed/Org/results/box/resnet/Server",
        "the official v4.0 checker passes this submission",
        f"differs: {DETAIL}: effective_min_duration_ms: min-duration, observed 1000, required >= 600000; "
        "it writes a line and lets it pass",
        "the strict check does not pass it",
    ]
    assert [one.rule for one in differences(check(short))] == ["min-duration"]


@pytest.mark.parametrize(
    ("part", "results"),
    [
        ("", 2),
        ("closed", 2),
        ("closed/Org", 2),
        ("closed/Org/results", 2),
        ("closed/Org/results/box/resnet", 2),
        ("closed/Org/results/box/resnet/Offline", 1),
        ("closed/Org/results/box/resnet/Offline/performance/run_1", 1),
        (DETAIL, 1),
        ("closed/Org/systems/box.json", 2),
        ("closed/Org/measurements/box/resnet/Server", 1),
        ("closed/Org/compliance/box/resnet/Offline/TEST01", 1),
        ("closed/Org/code/resnet", 2),
    ],
)
def test_any_part_of_a_tree_can_be_checked(part: str, results: int, small: Path, short: Path) -> None:
    assert check(small / part).passes
    assert len(check(small / part).rows) == results
    has_the_short_run = "Server" not in part
    assert check(short / part).passes is not has_the_short_run


def test_what_is_no_submission_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submission", "check", str(tmp_path)]) == 2
    assert "is no part of a submission" in capsys.readouterr().err
    assert main(["submission", "check", str(tmp_path / "none")]) == 2
    assert main(["submission", "check", str(tmp_path), "--round", "v9"]) == 2


@pytest.mark.parametrize("name", [name for name in round_names() if "3d-unet" in load_round(name).models])
def test_a_tree_by_each_rounds_rules_passes_by_them(name: str, tmp_path: Path, code: Path, make: ModuleType) -> None:
    ran = make.run_folder(tmp_path / "run", "3d-unet", ["Offline"], round_=load_round(name))
    tree = make.built(tmp_path / "tree", [ran], "datacenter", "box", code)
    assert check(tree, name).findings == []
    assert check(tree, "v4.0" if name != "v4.0" else "v3.1").passes is False


def test_another_rounds_rules(small: Path) -> None:
    """Its seeds, to begin with."""
    rules = {finding.rule for finding in check(small, "v3.1").findings}
    assert rules == {"seed"}
    assert check(small, "v5.0").requirements.round.name == "v5.0"


def test_json_and_sarif_name_rule_place_and_fix(short: Path) -> None:
    said = json.loads(shown.as_json(check(short)))
    (finding,) = said["findings"]
    assert finding["rule"] == "min-duration"
    assert finding["path"] == DETAIL
    assert finding["official"] == "logs"
    assert [said["passes"], said["official"]["passes"]] == [False, True]
    run = json.loads(shown.sarif(check(short)))["runs"][0]
    (result,) = run["results"]
    assert result["ruleId"] == run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "min-duration"
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == DETAIL
    assert "Required: >= 600000." in result["message"]["text"]


class Closed(HTMLParser):
    """Fails for an element that is closed by another's end."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert tag not in ("script", "link", "img"), "a page needs nothing else"
        if tag not in ("meta", "br", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(html: str) -> str:
    parser = Closed()
    parser.feed(html)
    assert parser.open == []
    return " ".join(parser.text)


def test_pages_are_whole_and_escape_what_they_show(short: Path, copied: Callable[[Path], Path]) -> None:
    system = short / "closed/Org/systems/box.json"
    described = json.loads(system.read_text())
    system.unlink()
    system.write_text(json.dumps({**described, "system_name": "<script>alert(1)</script>"}))
    checked = check(short)
    assert "min-duration" in read(page.check_page(checked))
    text = read(page.summary_page(table.lines(checked), "v4.0", 1))
    assert "<script>alert(1)</script>" in text
    assert "resnet, Server, closed" in text


def test_the_table_is_the_official_one(small: Path, edge: Path, llama: Path) -> None:
    """Lines that the official checker of v4.0 wrote of these trees."""
    written = {line for tree in (small, edge, llama) for line in table.csv(table.lines(check(tree))).splitlines()}
    system = '1,"Abacus 9",2,64,"N/A","0"'
    end = '"abacus 3.1","Debian 12","",1,0,v4.0'
    for line in [
        f'Org,available,closed,"datacenter","Abacus server",box,resnet,resnet,Server,1.97634,76.460,{system},'
        f"closed/Org/results/box/resnet/Server,{end},0,False,Queries/s",
        f'Org,available,closed,"edge","Abacus server",box,resnet,resnet,MultiStream,6400.000016,76.460,{system},'
        f"closed/Org/results/box/resnet/MultiStream,{end},1,False,Latency (ms)",
        f'Org,available,closed,"datacenter","Abacus server",box,llama2-70b-99,llama2-70b-99,Offline,327.135,44.4312,'
        f"{system},closed/Org/results/box/llama2-70b-99/Offline,{end},0,False,Samples/s",
    ]:
        assert line in written


def test_a_result_with_power_has_two_lines(powered: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(table.csv(table.lines(check(powered))))))
    assert [(row["Scenario"], row["Units"], row["has_power"]) for row in rows] == [
        ("Offline", "Samples/s", "True"),
        ("Offline", "Watts", "True"),
        ("Server", "Queries/s", "False"),
    ]
    assert float(rows[1]["Result"]) == pytest.approx(101.0)


def test_summaries_are_the_same_bytes_whenever_they_are_written(llama: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main(["submission", "summary", str(llama), "--output", str(tmp_path / name)]) == 0
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    with zipfile.ZipFile(tmp_path / "a" / "summary.xlsx") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_without_its_package_the_workbook_alone_is_missing(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert main(["submission", "summary", str(small), "--output", str(tmp_path)]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["summary.csv", "summary.html"]
    assert "pip install './loadgen[submission]'" in capsys.readouterr().err


def test_the_workbook_has_a_sheet_a_category_and_a_row_a_system(powered: Path, tmp_path: Path) -> None:
    assert main(["submission", "summary", str(powered), "--output", str(tmp_path)]) == 0
    book = openpyxl.load_workbook(tmp_path / "summary.xlsx")
    assert book.sheetnames == ["datacenter - closed", "datacenter - closed - power"]
    rows = list(book["datacenter - closed - power"].values)
    assert rows[0][-2:] == ("resnet", "resnet")
    assert rows[1][-2:] == ("Offline", "Offline")
    assert rows[2][-2:] == ("Samples/s", "Watts")
    assert rows[3][0] == f"4.0-{rows[3][0].split('-')[1]}"
    assert rows[3][2:6] == ("Org", "available", "Abacus server", 1)
    assert rows[3][-1] == pytest.approx(101.0)


def test_identifiers_stay_when_other_results_come(small: Path, llama: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(llama, tmp_path / "tree", copy_function=os.link))
    for part in ("results", "measurements", "compliance", "code"):
        more = "" if part == "code" else "box/"
        shutil.copytree(small / f"closed/Org/{part}/{more}resnet", tree / f"closed/Org/{part}/{more}resnet")
    before = {line.row.place.path: line.id for line in table.lines(check(llama))}
    after = {line.row.place.path: line.id for line in table.lines(check(tree))}
    assert len(after) == len(before) + 2
    assert {path: after[path] for path in before} == before


def test_the_rules_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submission", "rules"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(RULES)


def test_the_command_line_of_loadgen_and_its_exit_codes(short: Path, small: Path, tmp_path: Path) -> None:
    def ran(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "loadgen", "submission", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    assert ran("check", str(small))[0] == 0
    assert ran("check", str(short))[0] == 1
    assert ran("check", str(tmp_path))[0] == 2
    code, said = ran("check", str(short), "--format", "html", "--output", "found.html")
    assert (code, said) == (1, "found.html\n")
    assert "min-duration" in read((tmp_path / "found.html").read_text())
    assert ran("brew")[0] == 2
