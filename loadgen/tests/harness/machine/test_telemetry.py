"""What GPUs do during a test: from NVML, here a fake one, to the report."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import InputError
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.machine import telemetry
from loadgen.harness.machine.telemetry import Gpus, Sampling
from loadgen.harness.plan import Overrides, Request, resolve
from loadgen.harness.report import system_charts
from loadgen.harness.report.page import write_report
from loadgen.harness.run import execute

Make = Callable[..., Benchmark]


class NVMLError(Exception):
    pass


class FakeNvml:
    """NVML of GPUs that do not exist. Use rises by 10 % a sample; GPU 1 reports no power, and no use at first."""

    NVMLError = NVMLError

    def __init__(self, gpus: int = 2, driver: bool = True) -> None:
        self.gpus, self.driver, self.users, self.samples = gpus, driver, 0, [0] * gpus

    def nvmlInit(self) -> None:
        if not self.driver:
            raise NVMLError("Driver Not Loaded")
        self.users += 1

    def nvmlShutdown(self) -> None:
        self.users -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetName(self, gpu: int) -> bytes:
        return b"Fake GPU"

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return SimpleNamespace(total=80 << 30, used=(1 + gpu) << 30, free=(79 - gpu) << 30)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        self.samples[gpu] += 1
        if gpu == 1 and self.samples[1] == 1:
            raise NVMLError("Unknown Error")
        return SimpleNamespace(gpu=min(100, 10 * self.samples[gpu]))

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        if gpu == 1:
            raise NVMLError("Not Supported")
        return 350_500  # mW


def sampled(nvml: FakeNvml, folder: Path, seconds: float) -> telemetry.Telemetry | None:
    with Sampling(Gpus(nvml), folder, period_s=0.02):
        time.sleep(seconds)
    return telemetry.read(folder)


def test_gpus_say_what_they_are_and_let_go_of_nvml() -> None:
    nvml = FakeNvml()
    gpus = Gpus(nvml)
    assert gpus.facts == {"gpu 0": "Fake GPU, 80.0 GiB", "gpu 1": "Fake GPU, 80.0 GiB", "gpu driver": "580.1"}
    assert nvml.users == 1
    gpus.close()
    assert nvml.users == 0


def test_info_compares_what_a_gpu_has_free(
    benchmark_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nvml = FakeNvml()
    monkeypatch.setattr("loadgen.harness.machine.info.find_gpus", lambda: (Gpus(nvml), ""))
    made = benchmark_of()
    made = replace(made, profiles={"mini": replace(made.profiles["mini"], memory_gb=5.5)})
    assert invoke(made, ["info", "--device", "cuda", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "gpu memory needed: about 5.5 GB; free: 84.8 GB of gpu 0, 83.8 GB of gpu 1" in said
    assert "gpu 0 Fake GPU, 80.0 GiB" in said
    assert nvml.users == 0


def test_samples_are_written_and_read_back(tmp_path: Path) -> None:
    found = sampled(FakeNvml(), tmp_path, 0.3)
    assert found is not None
    first, second = found.summary()
    assert first["gpu"] == 0
    assert first["memory_mib"] == {"mean": 1024.0, "max": 1024.0}
    assert first["power_w"] == {"mean": 350.5, "max": 350.5}
    assert first["use_percent"]["max"] == 100.0 > first["use_percent"]["mean"] > 10.0
    assert second["memory_mib"]["max"] == 2048.0
    assert "power_w" not in second  # what a GPU does not report is left out, and is no zero
    times, use = found.of(0, "use_percent")
    assert use[0] == 10.0
    assert len(found.of(1, "use_percent")[0]) == len(times) - 1  # its first reading failed; the others stand
    assert 3 <= len(times) <= times[-1] / 0.02 + 1.5


def test_the_period_does_not_drift(tmp_path: Path) -> None:
    class Slow(FakeNvml):
        def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
            time.sleep(0.013)
            return 1000

    found = sampled(Slow(1), tmp_path, 0.5)
    assert found is not None
    assert float(np.median(found.time_s % 0.02)) < 0.009  # anywhere, if the reading's time came on top


def test_without_a_gpu_there_is_no_file_and_no_old_one(tmp_path: Path) -> None:
    (tmp_path / telemetry.FILE).write_text("of an earlier run")
    with Sampling(Gpus(), tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    assert telemetry.read(tmp_path) is None


def test_a_failed_test_keeps_its_samples(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Sampling(Gpus(FakeNvml()), tmp_path):
        raise KeyError
    assert telemetry.read(tmp_path) is not None


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "time_s,gpu,use_percent,memory_mib,power_w\n0,x,1,2,3\n"])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / telemetry.FILE).write_text(text)
    with pytest.raises(InputError, match=r"telemetry\.csv is damaged"):
        telemetry.read(tmp_path)


def test_a_chart_is_of_what_is_reported_and_stays_small(tmp_path: Path) -> None:
    with (tmp_path / telemetry.FILE).open("w", newline="") as file:
        rows = ((f"{second / 2}", gpu, second % 100, 1000, "") for second in range(72_000) for gpu in range(8))
        csv.writer(file).writerows([("time_s", "gpu", "use_percent", "memory_mib", "power_w"), *rows])
    samples = telemetry.read(tmp_path)
    assert samples is not None
    (use,) = system_charts.draw_gpus(samples, "x")
    assert use.title == "GPU use over time"
    assert "8 GPUs" in use.note
    assert len(use.svg) < 100_000  # ten hours of eight GPUs


@pytest.fixture
def folder(benchmark_of: Make, tmp_path: Path) -> Path:
    """A run with the fake GPUs."""
    request = Request(
        scenarios=("Server",), data=tmp_path / "data", output=tmp_path / "out", quiet=True, overrides=Overrides()
    )
    nvml = FakeNvml()
    assert execute(resolve(benchmark_of(), request), Gpus(nvml)) == 0
    assert nvml.users == 0
    return tmp_path / "out"


def test_a_run_records_its_gpus(folder: Path) -> None:
    data = json.loads((folder / "results.json").read_text())
    assert data["machine"]["gpu 1"] == "Fake GPU, 80.0 GiB"
    performance, accuracy = data["tests"]
    assert [row["gpu"] for row in performance["telemetry"]] == [0, 1]
    assert accuracy["telemetry"] == []
    assert (folder / "Server/performance/telemetry.csv").is_file()
    assert not (folder / "Server/accuracy/telemetry.csv").exists()


def test_the_report_shows_the_gpus(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert page.count("GPU use over time") == page.count("GPU power over time") == 1
    assert '<tr><th scope="row">0</th>' in page
    assert '<td class="n">350.5</td>' in page
    (folder / "Server/performance/telemetry.csv").unlink()
    write_report(folder)
    page = (folder / "report.html").read_text()
    assert "GPU use over time" not in page
    assert '<td class="n">350.5</td>' in page  # the figures are in results.json


def test_a_report_without_gpus_does_not_mention_them(benchmark_of: Make, tmp_path: Path) -> None:
    request = Request(scenarios=("Offline",), data=tmp_path / "data", output=tmp_path / "out", quiet=True)
    assert execute(resolve(benchmark_of(), request), Gpus()) == 0
    assert "GPU" not in (tmp_path / "out/report.html").read_text()
