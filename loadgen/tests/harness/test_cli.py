"""The command line as a user meets it: results, messages, exit codes."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadgen.contracts import InputError
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.harness.cli import invoke
from loadgen.harness.serving import Batching, BatchingSystem
from loadgen.settings import Scenario

Make = Callable[..., Benchmark]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_without_arguments_everything_runs(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(benchmark_of(), []) == 0
    printed = capsys.readouterr().out
    assert printed.count("VALID") >= 6
    assert "INVALID" not in printed
    assert "not a benchmark result" in printed
    (record,) = Path("results/squares").glob("*/results.json")
    tests = json.loads(record.read_text())["tests"]
    assert [(t["scenario"], t["mode"]) for t in tests[:2]] == [
        ("SingleStream", "PerformanceOnly"),
        ("SingleStream", "AccuracyOnly"),
    ]
    assert tests[1]["accuracy"]["values"]["f1"] == 100.0
    folder = record.parent / "Server" / "accuracy"
    assert (folder / "accuracy.txt").read_text() == '{"exact_match": 0.0, "f1": 100.0}\n'
    assert (folder / "mlperf_log_detail.txt").read_text().startswith(":::MLLOG")


def test_options_without_a_command_belong_to_run(benchmark_of: Make) -> None:
    assert invoke(benchmark_of(), ["--scenario", "Offline", "--mode", "accuracy", "--output", "here", "--quiet"]) == 0
    assert Path("here/Offline/accuracy/result.json").is_file()
    assert not Path("here/Server").exists()


def test_a_missed_target_is_exit_code_1(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(benchmark_of(reference=102.0), ["--mode", "accuracy", "--scenario", "Offline"]) == 1
    assert "100.000 < 100.980: MISSED" in capsys.readouterr().out


def test_both_ratios_are_judged_and_the_lower_decides(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--mode", "accuracy", "--scenario", "Offline", "--output", "out"]
    assert invoke(benchmark_of(reference=100.5), options) == 0
    assert "f1 100.000 >= 99.495: met; 99.9 %: MISSED" in " ".join(capsys.readouterr().out.split())
    (test,) = json.loads(Path("out/results.json").read_text())["tests"]
    assert [(one["ratio"], one["met"]) for one in test["accuracy"]["judged"]] == [(0.99, True), (0.999, False)]
    assert invoke(benchmark_of(reference=100.5), [*options, "--ratio", "0.999"]) == 1
    assert "f1 100.000 < 100.400: MISSED" in capsys.readouterr().out


def test_a_bug_in_a_metric_is_not_called_an_input_error(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("operands could not be broadcast together")

    options = ["--mode", "accuracy", "--scenario", "Offline"]
    for name in ("score", "prepare", "Numbers.__init__", "Squares.load"):
        with monkeypatch.context() as patched:
            patched.setattr(f"fake_bench.{name}", broken)
            assert invoke(benchmark_of(), options) == 3
            assert "Traceback" in capsys.readouterr().err


def test_an_invalid_test_is_exit_code_1(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--mode", "performance", "--scenario", "Offline", "--duration", "60", "--qps", "1"]
    assert invoke(benchmark_of(), options) == 1
    assert "where 60 s are asked (min_duration): set offline_expected_qps" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("scenario", ["SingleStream", "Server", "Offline"])
def test_a_failing_prediction_fails_the_run(
    benchmark_of: Make, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(benchmark_of(bad=13), ["--scenario", scenario, "--mode", "accuracy"]) == 3
    said = capsys.readouterr()
    printed = " ".join(said.out.split())
    assert "13" in printed
    assert "in submit" in said.err
    assert "failed: RuntimeError: no square for that" in printed
    (errors,) = Path("results/squares").glob("*/errors.txt")
    assert f"{scenario} accuracy\nTraceback" in errors.read_text()
    assert "in submit" in errors.read_text(), "the model's own lines"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "MultiStream"], "no scenario 'MultiStream': choose SingleStream, Server, Offline"),
        (["--backend", "tvm"], "no backend 'tvm': choose numpy, missing"),
        (["--profile", "huge"], "no profile 'huge': choose mini"),
        (["--category", "cloud"], "no category 'cloud': choose datacenter, edge"),
        (["--category", "edge", "--scenario", "Server"], "--scenario and --category both choose"),
        (["synthesize"], "squares has no synthetic profile: it has mini"),
        (["train-mini", "--steps", "3"], "squares has no training for its miniature"),
        (["--output", ""], "is empty: give a file's or folder's name"),
        (["--qps", "0"], "Invalid value for '--qps': 0.0 is not in the range x>0"),
        (["--duration", "-1"], "Invalid value for '--duration'"),
        (["--qps", "inf"], "inf is not a finite number"),
        (["--duration", "nan"], "nan is not"),
        (["--max-wait-ms", "inf"], "inf is not a finite number"),
        (["--threads", "100000"], "--threads 100000: this machine has"),
        (["--user-conf", "mode.conf"], "mode.conf sets the mode to AccuracyOnly: remove that line"),
        (["--user-conf", "typo.conf"], "typo.conf:2: no model 'brt', so the line would have no effect: did you mean"),
        (["run", "--resume", "nothing-here"], "nothing-here/results.json cannot be read"),
        (["--round", "v99"], "v99"),
        (["--ratio", "0.9"], "no ratio 0.9; there are 0.99, 0.999"),
        (["--device", "tpu"], "device 'tpu': backend numpy runs on cpu, cuda or cuda:N"),
        (["--device", "cuda:x"], "device 'cuda:x'"),
        (["--dtype", "int3"], "dtype 'int3': backend numpy computes in float32"),
        (["--device", "cuda", "--gpus-per-worker", "2"], "backend numpy keeps a model on one device"),
        (["--user-conf", "none.conf"], "none.conf"),
        (["--output", "a-file/below"], "a-file/below cannot be written as user"),
        (["--data", "damaged"], "damaged/broken: remove this file"),
        (["accuracy", "nothing-here"], "nothing-here is not there"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    benchmark_of: Make, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a-file").write_text("")
    Path("damaged").mkdir()
    Path("damaged/broken").write_text("")
    Path("mode.conf").write_text("*.*.mode = 1\n")
    Path("typo.conf").write_text("# a line\nbrt.Server.target_qps = 100\n")
    assert invoke(benchmark_of(), arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_an_image_says_where_official_files_are(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = benchmark_of()
    mini = made.profiles["mini"]
    made = replace(made, profiles={"mini": mini, "full": replace(mini, is_official=True)})
    Path("mounted").mkdir()
    Path("mounted/broken").touch()
    monkeypatch.setenv("INFERENCE_BENCH_DATA", "mounted")
    options = ["--scenario", "Offline", "--mode", "accuracy"]
    assert invoke(made, ["run", "--profile", "full", *options]) == 2
    assert "mounted/broken: remove this file" in capsys.readouterr().err
    assert invoke(made, ["run", "--profile", "full", "--data", "asked", *options]) == 0
    assert invoke(made, ["run", *options]) == 0


def test_a_missing_framework_names_the_extra_to_install(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = Path("needs_framework.py")
    package.write_text("import no_such_framework\n")
    monkeypatch.syspath_prepend(".")
    made = benchmark_of()
    made.backends["missing"] = BackendSpec("needs_framework:Backend", extra="abacus")  # type: ignore[index]
    assert invoke(made, ["--backend", "missing"]) == 2
    assert "pip install './benchmarks/squares[abacus]'" in capsys.readouterr().err


def test_a_bug_prints_a_traceback_and_exit_code_3(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fake_bench.prepare", lambda folder: 1 / 0)
    assert invoke(benchmark_of(), []) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_log_can_be_scored_again(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(benchmark_of(), ["--mode", "accuracy", "--scenario", "Server", "--output", "out", "--quiet"]) == 0
    log = Path("out/Server/accuracy/mlperf_log_accuracy.json")
    assert invoke(benchmark_of(), ["accuracy", str(log.parent)]) == 0
    log.write_text(log.read_text()[:-200])
    assert invoke(benchmark_of(), ["accuracy", str(log)]) == 2
    assert "cut off" in capsys.readouterr().err


def test_a_score_needs_no_official_weights(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(benchmark_of(), ["--mode", "accuracy", "--scenario", "Offline", "--output", "out", "--quiet"]) == 0
    made = benchmark_of()
    full = replace(made.profiles["mini"], is_official=True)
    made = replace(made, profiles={"full": full})
    Path("full").mkdir()
    Path("full/broken").touch()  # what the profile refuses for a run
    assert invoke(made, ["--data", "full"]) == 2
    assert invoke(made, ["accuracy", "out/Offline/accuracy", "--data", "full"]) == 0
    monkeypatch.setattr("fake_bench.Numbers.__init__", lambda self, folder: Path(folder, "absent").read_text())
    assert invoke(made, ["accuracy", "out/Offline/accuracy", "--data", "full"]) == 2
    assert "full/broken: remove this file" in capsys.readouterr().err


def test_the_version_is_told(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(benchmark_of(), ["--version"]) == 0
    assert capsys.readouterr().out.startswith("bench_squares with inference-loadgen ")


def test_info_names_the_origin_of_each_setting(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    Path("user.conf").write_text("bert.Server.min_query_count = 700\n")
    assert invoke(benchmark_of(), ["info", "--scenario", "Server", "--qps", "9", "--user-conf", "user.conf"]) == 0
    printed = capsys.readouterr().out
    assert "server_target_qps = 9.0  (command line)" in printed
    assert "min_query_count = 700  (user.conf)" in printed
    assert "server_target_latency_ns = 1000000000  (profile)" in printed
    assert "qsl_rng_seed = 13281865557512327830  (rules v4.0)" in printed


def test_a_category_runs_what_a_result_there_needs(benchmark_of: Make) -> None:
    options = ["--mode", "accuracy", "--quiet", "--output"]
    assert invoke(benchmark_of(), ["--category", "datacenter", *options, "one"]) == 0
    assert {path.name for path in Path("one").iterdir() if path.is_dir()} == {"Server", "Offline"}
    assert invoke(benchmark_of(), ["--category", "edge", "--category", "datacenter", *options, "all"]) == 0
    assert {path.name for path in Path("all").iterdir() if path.is_dir()} == {"SingleStream", "Server", "Offline"}


def test_a_category_whose_scenario_is_not_here_says_so(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = replace(benchmark_of(), scenarios=(Scenario.Offline,))
    assert invoke(made, ["--category", "datacenter"]) == 2
    assert "no scenario 'Server': choose Offline" in capsys.readouterr().err


def test_the_device_really_used_is_printed(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--scenario", "Offline", "--mode", "accuracy", "--output", "out"]
    assert invoke(benchmark_of(), options) == 0
    assert "on cpu in float32" in capsys.readouterr().out
    monkeypatch.setattr("fake_bench.Squares.device", "Abacus 3")
    assert invoke(benchmark_of(), options) == 0
    assert "on Abacus 3 in float32" in capsys.readouterr().out
    recorded = json.loads(Path("out/results.json").read_text())["options"]
    assert recorded["device used"] == "Abacus 3"
    assert recorded["abacus version"] == "3.1"


def test_info_says_what_is_needed_and_what_is_there(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = benchmark_of()
    mini = replace(made.profiles["mini"], memory_gb=1.5)
    assert invoke(replace(made, profiles={"mini": mini}), ["info", "--data", "d"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "memory needed: about 1.5 GB; free: ",
        "files d; free there: ",
        "none yet: a run makes them",
        "python 3",
    ):
        assert line in printed
    monkeypatch.setattr("fake_bench.memory", lambda backend, dtype, batch, device: batch / 2, raising=False)
    sized = replace(mini, memory_gb="fake_bench:memory")
    Path("d/model").mkdir(parents=True)
    Path("d/model/weights").write_bytes(bytes(2_000_000))
    assert invoke(replace(made, profiles={"mini": sized}), ["info", "--data", "d", "--batch", "9"]) == 0
    printed = capsys.readouterr().out
    assert "memory needed: about 4.5 GB" in printed
    assert "  model/weights: 2.0 MB" in printed


def test_info_adds_up_disk_and_time(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = benchmark_of()
    mini = replace(made.profiles["mini"], samples=50, disk_gb=0.002)
    made = replace(made, profiles={"mini": mini})
    assert invoke(made, ["info", "--data", "d", "--duration", "600", "--qps", "100"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "disk needed: about 2 MB more",
        "gpu memory needed: none with --device cpu",
        "SingleStream: performance 10 min, accuracy 0.0 s, at single_stream_expected_latency_ns = 1000  (profile)",
        "Server: performance 10 min, accuracy 0.5 s, at server_target_qps = 100  (command line)",
        "Offline: performance 11 min, accuracy 0.5 s",  # 66,000 samples: a tenth more than 600 s x 100/s
        "in total: 31 min",
    ):
        assert line in printed
    Path("d").mkdir()
    Path("d/made").write_bytes(bytes(1_500_000))
    assert invoke(made, ["info", "--data", "d", "--device", "cuda"]) == 0
    printed = capsys.readouterr().out
    assert "disk needed: about 0 MB more" in printed  # 0.5 MB
    assert "gpu memory needed: not known; free: " in printed


def test_info_says_what_it_does_not_know(benchmark_of: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(benchmark_of(), ["info", "--data", "d", "--scenario", "Server"]) == 0
    printed = capsys.readouterr().out
    assert "disk needed: not known" in printed
    assert "Server: performance 0.2 s, accuracy not known" in printed
    assert "in total: 0.2 s, and the accuracy tests" in printed


def test_synthesize_says_what_it_wrote(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(folder: Path) -> None:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "model").mkdir(exist_ok=True)
        for number in range(11):
            (folder / "data" / f"{number}.JPEG").write_bytes(bytes(100_000))

    def weigh(file: Path) -> None:
        if file.name == "b.bin":
            raise InputError("b.bin is made with the package beta, which is not installed")
        file.write_bytes(bytes(3_000_000))

    monkeypatch.setattr("fake_bench.make", make, raising=False)
    monkeypatch.setattr("fake_bench.weigh", weigh, raising=False)
    made = benchmark_of()
    specs = {
        "numpy": replace(made.backends["numpy"], file="a.bin"),
        "missing": replace(made.backends["missing"], file="b.bin"),
    }
    profiles = {**made.profiles, "synthetic": Profile("large", "fake_bench:make", weights="fake_bench:weigh")}
    made = replace(made, profiles=profiles, backends=specs)
    assert invoke(made, ["synthesize", "--data", "big"]) == 0
    printed = capsys.readouterr().out
    assert "model/a.bin  3.0 MB  written" in printed
    assert "b.bin: left out (b.bin is made with the package beta, which is not installed)" in printed
    assert "data  11 files, 1.1 MB  written" in printed, "not a line for each of thousands"
    assert "JPEG" not in printed
    assert invoke(made, ["synthesize", "--data", "big", "--backend", "numpy"]) == 0
    assert "model/a.bin  3.0 MB  was there" in capsys.readouterr().out
    assert invoke(made, ["synthesize", "--data", "big", "--backend", "missing"]) == 2
    assert "package beta" in capsys.readouterr().err
    assert invoke(made, ["synthesize", "--backend", "tvm"]) == 2


def test_a_benchmark_may_bring_its_own_system(benchmark_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[str, int]] = []

    class Own(BatchingSystem):
        def __init__(self, name: str, backends: Any, dataset: Any, encode: Any, batching: Batching) -> None:
            super().__init__(name, backends, dataset, encode, batching)
            built.append((name, batching.max_batch))

    monkeypatch.setattr("fake_bench.Own", Own, raising=False)
    made = replace(benchmark_of(), system="fake_bench:Own")
    assert invoke(made, ["--mode", "accuracy", "--batch", "3", "--quiet"]) == 0
    assert built == [("squares", 3)] * 3


def test_train_mini_hands_its_words_on(benchmark_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[list[str]] = []
    monkeypatch.setattr("fake_bench.train", words.append, raising=False)
    made = replace(benchmark_of(), train="fake_bench:train")
    assert invoke(made, ["train-mini", "--output", "w.npz", "--steps=9", "--fast"]) == 0
    assert invoke(made, ["train-mini", "--", "--help"]) == 0
    assert words == [["--output", "w.npz", "--steps=9", "--fast"], ["--help"]]


def test_a_training_s_own_usage_error_is_exit_code_2(
    benchmark_of: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser(prog="train")
    monkeypatch.setattr("fake_bench.train", parser.parse_args, raising=False)
    made = replace(benchmark_of(), train="fake_bench:train")
    assert invoke(made, ["train-mini", "--nonsense"]) == 2
    assert invoke(made, ["train-mini", "--", "--help"]) == 0
    assert "usage: train" in capsys.readouterr().out


def test_help_imports_nothing_heavy_and_takes_no_time() -> None:
    code = (
        "import sys, time\n"
        "from loadgen.harness.benchmark import Benchmark, Profile\n"
        "from loadgen.harness.cli import invoke\n"
        "b = Benchmark('x', 'X', 'bert', (), '', {}, '', '', {'mini': Profile('tiny', '')})\n"
        "assert invoke(b, ['--help']) == 0\n"
        "took = time.process_time()\n"
        "for name in ('run', 'accuracy', 'info', 'doctor', 'fetch', 'synthesize', 'train-mini', 'report', 'compare'):\n"
        "    assert invoke(b, [name, '--help']) == 0\n"
        "print(sorted({'numpy', 'rich', 'urllib3', 'pynvml', 'torch', 'onnxruntime'} & set(sys.modules)), took)"
    )
    runs = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
        for _ in range(3)
    )
    said, took = min((run.stdout.rsplit(" ", 1) for run in runs), key=lambda parts: float(parts[1]))
    assert said.endswith("[]")
    assert "Exit codes" in said
    assert float(took) < 0.3  # seconds of the processor, from the start of Python, the quickest of three
