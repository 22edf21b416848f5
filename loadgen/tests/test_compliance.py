"""Compliance tests judged by their logs, beside what the official scripts say (from `parity/make_compliance.py`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.commands import main
from loadgen.compliance import Runs, place, verify
from loadgen.compliance.answers import compare as compare_answers
from loadgen.compliance.performance import Speed, compare, keys_of, read_speed
from loadgen.compliance.tokens import verify as verify_tokens
from loadgen.errors import InputError
from loadgen.logs import LogError, detail_text
from loadgen.notes import DetailEntry
from loadgen.rules import load_round
from loadgen.settings import Scenario

V4_0 = load_round("v4.0")
GOLDEN = json.loads((Path(__file__).parent / "golden" / "compliance_4_0.json").read_text())
KEYS = {
    "SingleStream": "early_stopping_latency_ss",
    "MultiStream": "early_stopping_latency_ms",
    "Server": "result_completed_samples_per_sec",
    "Offline": "result_samples_per_second",
}


def speed(scenario: str, figure: float) -> Speed:
    return Speed(scenario, figure, valid=True, errors=0, target_latency_ns=0)


@pytest.mark.parametrize(
    "case", GOLDEN["performance"], ids=[f"{c['test']}-{c['scenario']}-{c['reference']}" for c in GOLDEN["performance"]]
)
def test_performance_is_judged_as_officially(case: dict[str, Any]) -> None:
    rules, scenario = V4_0.tests[case["test"]], Scenario[case["scenario"]]
    ours, officially = "", ""
    for share in case["shares"]:
        reference = speed(case["scenario"], case["reference"])
        check, text = compare(rules, scenario, reference, speed(case["scenario"], round(case["reference"] * share)))
        ours += "P" if check.passed else "F"
        officially += "P" if check.passed == (not check.official) else "F"
        assert ("TEST PASS" in text.splitlines()) is check.passed
    assert officially == case["said"]
    # The one difference that is meant: TEST04 of a stream that is not very short.
    short = scenario in rules.relaxed_below and case["reference"] <= rules.relaxed_below[scenario]
    if case["test"] == "TEST04" and "Stream" in case["scenario"] and not short:
        assert (ours, case["said"]) == ("FFFFFFFPPPPPPPPPPP", "FFFPPPPPPPPPPPPPPP")
    else:
        assert ours == case["said"]


def test_what_cannot_be_compared_fails() -> None:
    rules, good = V4_0.tests["TEST05"], speed("Offline", 100)
    for reference, run, why in [
        (replace(good, valid=False), good, "the reference run is INVALID"),
        (good, replace(good, valid=False), "the test run is INVALID"),
        (good, replace(good, scenario="Server"), "the test run's logs are of Server"),
        (good, replace(good, target_latency_ns=5), "target latencies differ: 0 and 5 ns"),
        (replace(good, figure=0), good, "have no result_samples_per_second"),
    ]:
        check, text = compare(rules, Scenario.Offline, reference, run)
        assert not check.passed
        assert why in check.said
        assert "TEST PASS" not in text


def logged(path: Path, answers: Sequence[Sequence[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"seq_id": k, "qsl_idx": i, "data": data} for k, (i, data) in enumerate(answers)]))
    return path


@pytest.mark.parametrize("case", GOLDEN["answers"], ids=str)
def test_answers_are_counted_as_officially(case: dict[str, Any], tmp_path: Path) -> None:
    found = compare_answers(logged(tmp_path / "a", case["accuracy"]), logged(tmp_path / "b", case["logged"]))
    counts = case["counts"]
    assert found.official is case["passes"]
    assert found.first_differing == counts["num_perf_log_data_mismatch"]
    assert found.accuracy_entries == counts["num_acc_log_entries"]
    assert found.accuracy_duplicates == counts["num_acc_log_duplicate_keys"]
    assert found.accuracy_mismatches == counts["num_acc_log_data_mismatch"]
    assert found.entries == counts["num_perf_log_entries"]
    known = {index for index, _ in case["accuracy"]}
    assert found.missing == sum(index not in known for index, _ in case["logged"])
    assert found.same <= found.official  # whole answers: never more lenient


def test_an_answer_that_differs_behind_its_first_byte_is_found(tmp_path: Path) -> None:
    whole = logged(tmp_path / "a", [[0, "0A0B"], [1, "0C0D"]])
    found = compare_answers(whole, logged(tmp_path / "b", [[0, "0A0B"], [1, "0CFF"]]))
    assert not found.same
    assert str(found.check()) == "1 samples of 2 answers differ, first sample 1 (the official script says TEST PASS)"
    assert "TEST PASS" not in found.text().splitlines()
    with pytest.raises(InputError, match="has no answer"):
        compare_answers(logged(tmp_path / "a", []), whole)


@pytest.mark.parametrize("case", GOLDEN["tokens"], ids=lambda case: f"{case['scenario']}-{case['answers'][1]}")
def test_tokens_are_judged_as_officially(case: dict[str, Any], tmp_path: Path) -> None:
    log = token_log(tmp_path / "log", case["answers"])
    checks, text = verify_tokens(log, Scenario[case["scenario"]], eos=2)
    assert text.splitlines() == case["lines"]
    assert all(check.passed for check in checks) == (case["lines"][-1] == "TEST06 verification complete")


def token_log(path: Path, answers: Sequence[Any]) -> Path:
    def as_hex(ids: Sequence[int]) -> str:
        return b"".join(number.to_bytes(8, "little") for number in ids).hex().upper()

    entries = [
        {"seq_id": k, "qsl_idx": k, "data": as_hex(ids), "token_data": as_hex(first), "token_count": count}
        for k, (ids, first, count) in enumerate(answers)
    ]
    path.write_text(json.dumps(entries))
    return path


def test_a_first_token_that_was_not_reported_is_no_right_one(tmp_path: Path) -> None:
    (first, *_), text = verify_tokens(token_log(tmp_path / "log", [[[5, 6], [], 2]]), Scenario.Server, eos=2)
    assert not first.passed
    assert first.said == "1 of 1 answers: first sample 0 is not the first reported"
    assert "First token check pass: False" in text
    assert not verify_tokens(token_log(tmp_path / "log", []), Scenario.Server, eos=2)[0][0].passed


def run_folder(folder: Path, figure: float, answers: Sequence[Sequence[Any]] = (), **changed: Any) -> Path:
    """Logs of an Offline run that is as fast as this."""
    values = {
        "effective_scenario": "Offline",
        "result_samples_per_second": figure,
        "result_validity": "VALID",
        **changed,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mlperf_log_detail.txt").open("w") as file:
        file.write(detail_text([DetailEntry(key, value, 0) for key, value in values.items()]))
    (folder / "mlperf_log_summary.txt").write_text(f"Samples per second: {figure}\n")
    logged(folder / "mlperf_log_accuracy.json", answers)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    answers = [[0, "0A0B"], [1, "0C0D"]]
    return Runs(
        run_folder(tmp_path / "performance", 100),
        run_folder(tmp_path / "accuracy", 100, answers),
        run_folder(tmp_path / "test", 95, answers),
    )


def files_of(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


LOGS = {"performance/run_1/mlperf_log_summary.txt", "performance/run_1/mlperf_log_detail.txt"}


def scorer(before: float, after: float) -> Any:
    def score(log: Path) -> tuple[Mapping[str, float], Mapping[str, float]]:
        return {"exact_match": 0.0, "f1": before}, {"exact_match": 0.0, "f1": after}

    return score


def test_equal_answers_pass_and_lie_where_a_submission_has_them(runs: Runs, tmp_path: Path) -> None:
    verdict = verify(V4_0, "bert", "TEST01", Scenario.Offline, runs, scorer(90.0, 90.0))
    assert verdict.passed(0.99)
    assert verdict.passed(0.999)
    assert verdict.record((0.99, 0.999))["passed"] == {"0.99": True, "0.999": True}
    made = place(verdict, runs.test, tmp_path / "out")
    assert files_of(made) == LOGS | {
        "verify_performance.txt",
        "verify_accuracy.txt",
        "accuracy/mlperf_log_accuracy.json",
        "accuracy/accuracy.txt",
    }
    assert "TEST PASS" in (made / "verify_accuracy.txt").read_text().splitlines()
    assert (made / "accuracy" / "accuracy.txt").read_text() == '{"exact_match": 0.0, "f1": 90.0}\n'
    (made / "left-over").touch()
    assert "left-over" not in files_of(place(verdict, runs.test, tmp_path / "out"))


@pytest.mark.parametrize(("after", "passes"), [(90.0, (True, True)), (90.5, (True, False)), (92.0, (False, False))])
def test_where_answers_differ_their_score_decides_for_each_ratio(
    after: float, passes: tuple[bool, bool], runs: Runs, tmp_path: Path
) -> None:
    logged(runs.test / "mlperf_log_accuracy.json", [[0, "0A0C"]])
    verdict = verify(V4_0, "bert", "TEST01", Scenario.Offline, runs, scorer(90.0, after))
    assert (verdict.passed(0.99), verdict.passed(0.999)) == passes
    made = place(verdict, runs.test, tmp_path / "out")
    assert {"accuracy/baseline_accuracy.txt", "accuracy/compliance_accuracy.txt"} < files_of(made)
    assert "TEST PASS" not in (made / "verify_accuracy.txt").read_text()
    assert not verify(V4_0, "bert", "TEST01", Scenario.Offline, runs).passed()


def test_a_metric_may_have_a_bound_of_its_own(runs: Runs) -> None:
    def score(log: Path) -> tuple[Mapping[str, float], Mapping[str, float]]:
        return {"CLIP_SCORE": 31.7, "FID_SCORE": 23.5}, {"CLIP_SCORE": 31.7, "FID_SCORE": 23.9}

    logged(runs.test / "mlperf_log_accuracy.json", [[0, "0A0C"]])
    later = load_round("v4.1")
    assert verify(later, "stable-diffusion-xl", "TEST01", Scenario.Offline, runs, score).passed()
    assert not verify(V4_0, "stable-diffusion-xl", "TEST01", Scenario.Offline, runs, score).passed()


def test_a_part_without_a_score_is_no_proof(runs: Runs, tmp_path: Path) -> None:
    def none(log: Path) -> Any:
        raise InputError("cases are missing")

    assert verify(V4_0, "3d-unet", "TEST01", Scenario.Offline, runs, none).passed()  # answers are equal
    logged(runs.test / "mlperf_log_accuracy.json", [[0, "0A0C"]])
    verdict = verify(V4_0, "3d-unet", "TEST01", Scenario.Offline, runs, none)
    assert not verdict.passed()
    assert "no score of their own: cases are missing" in str(verdict.scores[0.99])


def test_other_tests_need_no_answers(runs: Runs, tmp_path: Path) -> None:
    for test, figure, passes in [
        ("TEST04", 109, True),
        ("TEST04", 111, False),
        ("TEST05", 96, True),
        ("TEST05", 94, False),
    ]:
        run_folder(runs.test, figure)
        verdict = verify(V4_0, "resnet50", test, Scenario.Offline, runs)
        assert verdict.passed() is passes
        assert files_of(place(verdict, runs.test, tmp_path / "out")) == LOGS | {"verify_performance.txt"}
    with pytest.raises(InputError, match=r"round v5\.0 has no TEST05: it has TEST01, TEST04, TEST06"):
        verify(load_round("v5.0"), "resnet50", "TEST05", Scenario.Offline, runs)
    with pytest.raises(LogError, match=r"mlperf_log_detail\.txt"):
        verify(V4_0, "resnet50", "TEST05", Scenario.Offline, replace(runs, test=tmp_path / "none"))


@pytest.mark.parametrize("value", ["fast", True, float("nan"), [1]])
def test_a_figure_that_is_no_number_is_named(value: Any, tmp_path: Path) -> None:
    run = run_folder(tmp_path, value)
    with pytest.raises(LogError, match=r"mlperf_log_detail\.txt: result_samples_per_second is"):
        read_speed(run, Scenario.Offline)


def test_before_early_stopping_the_percentile_itself_is_compared(tmp_path: Path) -> None:
    values = {"result_90.00_percentile_latency_ns": 7, "early_stopping_latency_ss": 9}
    run = run_folder(tmp_path, 100, effective_scenario="SingleStream", **values)
    assert read_speed(run, Scenario.SingleStream).figure == 9
    keys = keys_of(load_round("v1.1").tests["TEST05"], load_round("v1.1").early_stopping)
    assert read_speed(run, Scenario.SingleStream, keys).figure == 7
    keys = keys_of(load_round("v2.0").tests["TEST04-B"], load_round("v2.0").early_stopping)
    assert read_speed(run, Scenario.SingleStream, keys).figure == 7


def test_the_command_judges_logs_of_any_system(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["verify", "TEST01", str(tmp_path), str(runs.test), "--model", "bert"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    assert "Offline TEST01 accuracy: 2 answers equal" in capsys.readouterr().out
    assert (tmp_path / "out" / "TEST01" / "verify_performance.txt").is_file()
    run_folder(runs.test, 80, [[0, "0A0B"]])
    assert main(words) == 1
    assert "Offline TEST01: FAIL" in capsys.readouterr().out
    assert main(["verify", "TEST09", *words[2:]]) == 2
    assert "round v4.0 has no TEST09" in capsys.readouterr().err


@given(
    test=st.sampled_from(["TEST01", "TEST05", "TEST06"]),
    name=st.sampled_from(["mlperf_log_detail.txt", "mlperf_log_accuracy.json"]),
    at=st.floats(0, 1),
    put=st.binary(max_size=12),
    cut=st.integers(0, 40),
)
def test_damaged_logs_are_an_error_with_a_name_and_no_traceback(
    test: str, name: str, at: float, put: bytes, cut: int, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (runs.accuracy / name).read_bytes()
    place_of_it = int(at * len(whole))
    (runs.test / name).write_bytes(whole[:place_of_it] + put + whole[place_of_it + cut :])
    code = main(["verify", test, str(runs.test.parent), str(runs.test), "--model", "bert"])
    assert code in (0, 1, 2)
    if code == 2:
        assert str(runs.test) in capsys.readouterr().err
    (runs.test / name).write_bytes(whole)
