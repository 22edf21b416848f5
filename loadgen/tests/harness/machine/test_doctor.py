"""The doctor's checks, each on a machine where its finding is planted; and the command."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadgen.errors import InputError
from loadgen.harness.benchmark import BackendSpec, Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.machine import checks, doctor, needs, telemetry
from loadgen.harness.machine.checks import OK, PROBLEM, UNKNOWN, WARNING, Finding
from loadgen.harness.plan import Request, import_name, resolve
from loadgen.settings import Mode

Make = Callable[..., Benchmark]
GB = 10**9


def found(finding: Finding, state: str, seen: str = "", fix: str = "") -> None:
    """A warning and a problem come with a fix, others without."""
    assert (finding.state, bool(finding.fix)) == (state, state in (WARNING, PROBLEM))
    assert seen in finding.seen
    assert fix in finding.fix


def put(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def test_python() -> None:
    found(checks.python((3, 9, 7)), PROBLEM, "3.9.7", "3.10")
    found(checks.python((3, 10, 0)), OK, "3.10.0")
    found(checks.python(), OK)


@pytest.mark.parametrize(
    ("files", "allowed", "state", "seen"),
    [
        ({}, 8, OK, "8 of 8"),
        ({}, 1, WARNING, "1 of 8"),
        ({"cpu.max": "max 100000"}, 4, OK, "4 of 8"),
        ({"cpu.max": "150000 100000"}, 8, WARNING, "limited to the computing time of 1.5"),
        ({"cpu.max": "800000 100000"}, 8, OK, "8 of 8"),
        (
            {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"},
            8,
            WARNING,
            "limited to the computing time of 2.5",
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8, OK, "8 of 8"),
    ],
)
def test_cores(files: dict[str, str], allowed: int, state: str, seen: str, tmp_path: Path) -> None:
    found(checks.cores(allowed, 8, put(tmp_path, files)), state, seen)


def test_load(monkeypatch: pytest.MonkeyPatch) -> None:
    found(checks.load(0.3, 4), OK)
    found(checks.load(3.2, 4), WARNING, "3.2 processes run on 4 cores", "top")

    def refuse() -> None:
        raise OSError

    monkeypatch.setattr(checks.os, "getloadavg", refuse)
    found(checks.load(checks.load_average(), 4), UNKNOWN, "not known here")


def test_memory() -> None:
    found(checks.memory(8 * GB, 5.5 * GB), OK, "8.0 GB free, about 5.5 GB needed")
    found(checks.memory(5 * GB, 5.5 * GB), PROBLEM, fix="--memory")
    found(checks.memory(5 * GB, 0), OK, "5.0 GB free")
    found(checks.memory(None, 5.5 * GB), UNKNOWN, "not known here")


def test_disk(tmp_path: Path) -> None:
    found(checks.disk(8 * GB, 7 * GB, tmp_path), OK, "8.0 GB free, 7.0 GB more needed")
    found(checks.disk(6 * GB, 7 * GB, tmp_path), PROBLEM, fix="--data")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found(checks.writable("results folder", tmp_path / "not" / "yet", "--output"), OK, "can be written")
    assert list(tmp_path.iterdir()) == []

    def refuse(dir: Path) -> None:
        raise OSError(30, "Read-only file system", str(dir))

    monkeypatch.setattr(checks.tempfile, "TemporaryFile", refuse)
    finding = checks.writable("results folder", tmp_path / "not" / "yet", "name another folder by --output")
    found(finding, PROBLEM, "cannot be written (Read-only file system)", "--output")


@pytest.mark.parametrize(
    ("current", "offered", "state", "fix"),
    [
        ("tsc", "tsc hpet", OK, ""),
        ("kvm-clock", "kvm-clock", OK, ""),
        ("arch_sys_counter", "arch_sys_counter", OK, ""),
        ("hpet", "tsc hpet acpi_pm", WARNING, "echo tsc | sudo tee "),
        ("acpi_pm", "acpi_pm", WARNING, "tsc=reliable"),
    ],
)
def test_clock_source(current: str, offered: str, state: str, fix: str, tmp_path: Path) -> None:
    names = {"current_clocksource": current, "available_clocksource": offered}
    put(tmp_path / "clocksource" / "clocksource0", names)
    found(checks.clock_source(tmp_path), state, current, fix)


@pytest.mark.parametrize(
    ("governors", "state", "seen"),
    [
        (["performance", "performance"], OK, "performance"),
        (["performance", "powersave"], WARNING, "performance, powersave"),
        (["schedutil"], WARNING, "schedutil"),
    ],
)
def test_governor(governors: list[str], state: str, seen: str, tmp_path: Path) -> None:
    put(tmp_path, {f"cpu/cpu{n}/cpufreq/scaling_governor": name for n, name in enumerate(governors)})
    found(checks.governor(tmp_path), state, seen, "cpupower frequency-set -g performance" if state == WARNING else "")


def test_where_the_system_says_nothing(tmp_path: Path) -> None:
    found(checks.clock_source(tmp_path), UNKNOWN, "not known here")
    found(checks.governor(tmp_path / "none"), UNKNOWN, "not known here")


def test_timer_slack() -> None:
    found(checks.timer_slack([8_000] * 199 + [30_000]), OK, "8 us late at the median, 8 us at p99")
    found(checks.timer_slack([150_000] * 200), WARNING, "150 us late")
    found(checks.timer_slack([8_000] * 190 + [4_000_000] * 10), WARNING, "4000 us at p99")
    late = checks.lateness_ns(5)
    assert late == sorted(late)
    assert late[0] >= 0


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
    """Makes an engine's socket that gives one answer."""
    threads: list[threading.Thread] = []

    def listen(answer: bytes) -> Path:
        place = tmp_path / "docker.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(place))
        server.listen()

        def work() -> None:
            with server, server.accept()[0] as client:
                client.recv(1000)
                client.sendall(answer)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return place

    yield listen
    for thread in threads:
        thread.join()


def test_an_engine_that_answers(listening: Callable[[bytes], Path], tmp_path: Path) -> None:
    body = b'{"Platform": {"Name": "Docker Engine - Community"}, "Version": "28.1.1"}'
    place = listening(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)
    found(checks.engine("", [tmp_path / "none", place]), OK, f"Docker Engine - Community 28.1.1 at {place}")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 500 no\r\n\r\n", b'HTTP/1.0 404 no\r\n\r\n{"message": "no"}'])
def test_an_engine_that_does_not_answer(listening: Callable[[bytes], Path], answer: bytes) -> None:
    found(checks.engine(f"unix://{listening(answer)}", []), WARNING, "does not answer", "systemctl restart docker")


def test_other_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found(checks.engine("", [tmp_path / "none"]), WARNING, f"no engine listens at {tmp_path / 'none'}", "install")
    found(checks.engine("tcp://other:2375", []), UNKNOWN, "tcp://other:2375")

    def refuse(place: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks, "_version", refuse)
    found(checks.engine("", [tmp_path]), WARNING, "may not use", "usermod -aG docker")


def test_gpu(tmp_path: Path) -> None:
    facts = {"gpu 0": "H200, 139.8 GiB", "gpu driver": "570.1"}
    found(checks.gpu(facts, "", "cuda"), OK, "gpu 0 H200, 139.8 GiB, gpu driver 570.1")
    found(checks.gpu({}, "no driver answers", "cpu"), OK, "not used with --device cpu (no driver answers)")
    driver = put(tmp_path, {"version": "570.1"}) / "version"
    found(checks.gpu({}, "nvidia-ml-py is not installed", "cuda", driver), WARNING, "nvidia-ml-py", "loadgen[gpu]")
    found(checks.gpu({}, "no driver answers", "cuda", tmp_path / "none"), PROBLEM, fix="NVIDIA's driver")


def test_gpu_memory() -> None:
    found(checks.gpu_memory([3 * GB, 80 * GB], 5.5 * GB), OK, "3.0, 80.0 GB free, about 5.5 GB needed")
    found(checks.gpu_memory([3 * GB, 4 * GB], 5.5 * GB), PROBLEM, fix="nvidia-smi")
    found(checks.gpu_memory([3 * GB], 0), OK)
    found(checks.gpu_memory([], 5.5 * GB), UNKNOWN)


def test_the_command_prints_findings_and_fixes(
    benchmark_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert invoke(benchmark_of(), ["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(": ")[0].split(maxsplit=1)[1] for line in lines[:-1] if not line.startswith(" ")]
    assert names == [
        *("Python", "cores", "load", "memory", "disk", "files and packages", "data folder", "cache"),
        "results folder",
        *("clock source", "CPU governor", "timer slack", "engine", "GPU"),
    ]
    assert lines[-1].startswith("0 problems, ")
    assert not Path("results").exists()


def test_a_problem_is_exit_code_2(
    benchmark_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = benchmark_of()
    large = replace(made.profiles["mini"], memory_gb=1e6, disk_gb=1e6)
    made = replace(made, profiles={"mini": large})
    assert invoke(made, ["doctor", "--data", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert printed.count("problem  ") == 2
    assert "         fix: make room, or name another folder by --data" in printed
    assert "2 problems" in printed
    assert invoke(made, ["doctor", "--quiet", "--data", str(tmp_path)]) == 2
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        *("problem  memory", "         fix", "problem  disk", "         fix"),
    ]
    monkeypatch.setattr(doctor, "find_gpus", lambda: (telemetry.Gpus(), "no driver"))
    monkeypatch.setattr(checks, "gpu", lambda facts, why, device: Finding("GPU", PROBLEM, why, "install one"))
    assert invoke(benchmark_of(), ["doctor", "--device", "cuda"]) == 2
    assert "problem  GPU: no driver" in capsys.readouterr().out


def test_what_a_run_refuses_is_not_approved(
    benchmark_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = benchmark_of()
    mini = made.profiles["mini"]
    made = replace(made, profiles={"mini": mini, "full": replace(mini, is_official=True)})
    made.backends["missing"] = BackendSpec("needs_framework:Backend", extra="abacus")  # type: ignore[index]
    Path("needs_framework.py").write_text("import no_such_framework\n")
    monkeypatch.syspath_prepend(".")
    Path("full").mkdir()
    Path("full/broken").touch()
    for words, reason in (
        (["--profile", "full", "--data", "full"], "full/broken: remove this file"),
        (["--backend", "missing"], "pip install './benchmarks/squares[abacus]'"),
    ):
        assert invoke(made, ["run", *words, "--output", "out"]) == 2
        assert reason in capsys.readouterr().err
        assert invoke(made, ["doctor", *words]) == 2
        problem = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("problem"))
        assert reason in problem
        assert invoke(made, ["info", *words]) == 0
        assert reason in capsys.readouterr().out


def test_sockets_of_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert os.fspath(doctor._sockets()[1]) == "/run/user/7/podman/podman.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert len(doctor._sockets()) == 2


def test_logs_that_no_disk_holds_are_refused_before_the_first_test(
    benchmark_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image has megabytes: hours of drawing would end with a full disk."""
    made = benchmark_of()
    monkeypatch.setattr(import_name(made, made.dataset, "the dataset"), "answer_bytes", 10**15, raising=False)
    profile = replace(made.profiles["mini"], samples=50, answer_bytes=10**15)
    made = replace(made, profiles={"mini": profile})
    told = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    invoke(made, ["doctor", "--quiet", *told])
    assert "problem  disk for logs" in capsys.readouterr().out
    assert invoke(made, ["run", *told, "--scenario", "Offline"]) == 2
    assert "accuracy logs of this run take 100000000.0 GB" in capsys.readouterr().err
    assert not (tmp_path / "out" / "Offline").exists()
    assert invoke(made, ["run", *told, "--scenario", "Offline", "--mode", "performance"]) == 0


def test_a_log_that_is_written_again_makes_room_for_itself(
    benchmark_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = resolve(benchmark_of(), Request(("Offline",), modes=(Mode.AccuracyOnly,)))
    dataset: Any = SimpleNamespace(total_count=50, answer_bytes=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=400))
    with pytest.raises(InputError, match="--output"):
        needs.check_room(dataset, plan.tests, tmp_path)
    put(tmp_path, {"Offline/accuracy/mlperf_log_accuracy.json": "x" * 700})
    needs.check_room(dataset, plan.tests, tmp_path)
