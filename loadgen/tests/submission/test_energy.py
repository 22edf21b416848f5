"""Power: the official figures of a session, and the unofficial ones of the machine's own counters."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from loadgen.errors import InputError
from loadgen.harness.machine.description import describe
from loadgen.harness.machine.rapl import Counting
from loadgen.harness.machine.telemetry import Gpus
from loadgen.harness.submission import main
from loadgen.submission import shown
from loadgen.submission.check import check
from loadgen.submission.energy import LABEL, energies
from loadgen.submission.runs import read_run


def test_watts_are_the_mean_while_the_load_ran(powered: Path) -> None:
    (row,) = [row for row in check(powered).rows if row.power]
    assert row.power is not None
    assert row.measured.value is not None
    assert row.power.metric == pytest.approx(101.0)
    assert row.power.efficiency == pytest.approx(row.measured.value / 101.0)
    assert "101 W, 0.404869 a joule" in shown.text(check(powered))


@pytest.fixture
def counted(llama: Path, tmp_path: Path) -> Path:
    """A run whose Offline test took 1,000 J of a GPU and 500 J of a processor."""
    run = Path(shutil.copytree(llama.parent / "run", tmp_path / "run"))
    place = run / "Offline" / "performance"
    rows = [f"{second},0,50,1000,{100 if second else ''}" for second in range(12)]
    (place / "telemetry.csv").write_text("\n".join(["time_s,gpu,use_percent,memory_mib,power_w", *rows]) + "\n")
    (place / "energy.json").write_text(json.dumps({"source": "RAPL", "joules": {"package-0": 500.0}}))
    return run


def test_joules_a_sample_and_a_token_are_labelled(counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (energy,) = energies(read_run(counted))
    assert energy.joules == pytest.approx({"gpu 0": 1000.0, "cpu package-0": 500.0})
    assert energy.per_sample == pytest.approx(1500 / 24576)
    assert energy.per_token == pytest.approx(1500 / (8 * 24576), rel=1e-4)
    assert main(["submission", "energy", str(counted)]) == 0
    assert LABEL in capsys.readouterr().out


def test_a_run_without_counters_says_what_they_need(
    llama: Path, counted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submission", "energy", str(llama.parent / "run")]) == 0
    assert "no counters were read" in capsys.readouterr().out
    (counted / "Offline/performance/energy.json").write_text("{")
    with pytest.raises(InputError, match=r"energy\.json is damaged"):
        energies(read_run(counted))


def zone(root: Path, joules: float) -> None:
    folder = root / "intel-rapl:0"
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", int(joules * 1e6)), ("max_energy_range_uj", 262_000_000)):
        (folder / name).write_text(f"{text}\n")


def test_a_counter_that_comes_round_is_counted_on(tmp_path: Path) -> None:
    zone(tmp_path, 250.0)
    with Counting(tmp_path / "out", root=tmp_path, period_s=0.01) as counting:
        zone(tmp_path, 5.0)  # through 262 J
        deadline = time.monotonic() + 5
        while counting.joules["package-0"] < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        zone(tmp_path, 8.0)
    said = json.loads((tmp_path / "out" / "energy.json").read_text())
    assert said == {"source": "RAPL", "joules": {"package-0": pytest.approx(20.0)}}


def test_without_counters_nothing_is_written(tmp_path: Path) -> None:
    with Counting(tmp_path / "out", root=tmp_path):
        pass
    assert not (tmp_path / "out").exists()


CPUINFO = """\
processor\t: {n}
model name\t: Abacus 9
physical id\t: {socket}
siblings\t: 4
core id\t: {core}
"""


def test_a_machine_is_described_by_what_it_says(tmp_path: Path) -> None:
    cpus = [CPUINFO.format(n=n, socket=n // 4, core=n % 2) for n in range(8)]  # 2 sockets, 2 cores, 2 threads
    files = {
        "proc/cpuinfo": "\n".join(cpus),
        "proc/meminfo": "MemTotal:       24628492 kB\n",
        "etc/os-release": 'PRETTY_NAME="Debian 12"\n',
        "sys/block/nvme0n1/size": "2000000",
        "sys/block/loop0/size": "10",
        "sys/class/net/eth0/speed": "25000",
        "sys/class/net/lo/speed": "0",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3500000",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "sys/class/net/eth0/device").mkdir()
    found = describe(Gpus(), tmp_path)
    assert found["host_processors_per_node"] == "2"
    assert found["host_processor_core_count"] == "2"
    assert found["host_processor_frequency"] == "3.50 GHz at most"
    assert found["host_memory_capacity"] == "24 GB"
    assert (found["host_storage_capacity"], found["host_storage_type"]) == ("1 GB", "NVMe SSD")
    assert (found["host_networking"], found["host_network_card_count"]) == ("Ethernet, 25 Gb/s", "1x 25 Gb/s")
    assert found["operating_system"].startswith("Debian 12, kernel ")
    assert (found["accelerators_per_node"], found["accelerator_model_name"]) == ("0", "N/A")
    assert "cooling" not in found
    assert describe(Gpus(), tmp_path / "empty")["accelerators_per_node"] == "0"
