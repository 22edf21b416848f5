"""`python -m loadgen`."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadgen.commands import main
from loadgen.logs import LogSettings
from loadgen.run import run
from loadgen.settings import Scenario, TestSettings
from loadgen.testing import FakeLibrary, FakeSystem


def test_demo_shows_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "--seconds", "0.3"])  # so short a test may end INVALID on a busy machine
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines() if line[0] != " "] == [s.name for s in Scenario]
    assert "VALID" in printed


def test_explain_names_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "user.conf"
    conf.write_text("# mine\nbert.Server.target_qps = 77\n")
    assert main(["explain", str(conf), "--model", "bert"]) == 0
    (line,) = [row for row in capsys.readouterr().out.splitlines() if row.startswith("server_target_qps")]
    assert "77.0" in line
    assert f"{conf}:2" in line


def test_summarize_reads_a_log_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = TestSettings(scenario=Scenario.Offline, min_duration_ms=0, accuracy_log_probability=1.0)
    run(FakeSystem(), FakeLibrary(), settings, log=LogSettings(tmp_path))
    assert main(["summarize", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "result_validity: VALID" in printed
    assert "accuracy log: 100 answers" in printed


def test_summarize_says_what_is_wrong_with_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detail = tmp_path / "run" / "Offline" / "performance" / "mlperf_log_detail.txt"
    detail.parent.mkdir(parents=True)
    detail.touch()
    given = {
        detail.parent: f"{detail} is empty: the test did not end",
        tmp_path / "run": f"is not there: give the folder of one test's logs, such as {detail.parent}",
        tmp_path / "run" / "Offline": f"is not there: give the folder of one test's logs, such as {detail.parent}",
        tmp_path / "none": "is not there: give the folder of one test's logs\n",
        detail: "is not there: give the folder of one test's logs\n",
    }
    for folder, said in given.items():
        assert main(["summarize", str(folder)]) == 2
        assert said in capsys.readouterr().err
    detail.write_bytes(b"\xff\xfe\x00")
    assert main(["summarize", str(detail.parent)]) == 2
    assert f"{detail}:1: not a ':::MLLOG' line" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["summarize", "no-such-folder"], ["explain", "no-such.conf"]])
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_rules_are_printed_as_a_conf_that_can_be_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "v4.0", "--conf"]) == 0
    conf = tmp_path / "mlperf.conf"
    conf.write_text(capsys.readouterr().out)
    assert main(["explain", str(conf), "--model", "bert", "--scenario", "Server"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "server_target_latency_ns" in line)
    assert "130000000" in line.replace(",", "").replace("_", "")
    assert str(conf) in line
