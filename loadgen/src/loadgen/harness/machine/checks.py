"""What may be wrong with a machine for a benchmark: each check looks at one thing and knows the fix."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadgen.clock import precise_sleep
from loadgen.harness.files import above

OK, WARNING, PROBLEM, UNKNOWN = "ok", "warning", "problem", "unknown"
"""A problem makes runs impossible; a warning makes them slower, or their numbers less even."""

_HERE = "not known here"
_GOOD_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")  # read without a system call
_SLEEP_NS = 100_000


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's, and what to do about it."""

    what: str
    state: str
    seen: str
    fix: str = ""


def _read(file: Path) -> str:
    """Empty: there is none, or it may not be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    seen = ".".join(map(str, version))
    if version < (3, 10):
        return Finding("Python", PROBLEM, seen, "install Python 3.10 or newer")
    return Finding("Python", OK, seen)


def possible(obstacle: str) -> Finding:
    """obstacle: what a run would be refused for, with the remedy in it; empty: nothing."""
    if obstacle:
        return Finding("files and packages", PROBLEM, obstacle)
    return Finding("files and packages", OK, "as a run needs them")


def cores(allowed: int, online: int, cgroup: Path = Path("/sys/fs/cgroup")) -> Finding:
    """allowed: those that this process may run on."""
    seen = f"{allowed} of {online}"
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if not period:
        quota, period = (_read(cgroup / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    if quota.isdigit() and period.isdigit() and int(quota) < allowed * int(period):
        share = int(quota) / int(period)
        fix = "give the container whole cores (--cpuset-cpus): with --cpus it stands still once its share is used up"
        return Finding("cores", WARNING, f"{seen}, limited to the computing time of {share:.1f}", fix)
    if allowed == 1:
        return Finding("cores", WARNING, seen, "use a second core: on one, load generator and model take turns")
    return Finding("cores", OK, seen)


def load(one_minute: float | None, online: int) -> Finding:
    """one_minute: processes that wanted to run, on average."""
    if one_minute is None:
        return Finding("load", UNKNOWN, _HERE)
    seen = f"{one_minute:.1f} processes run on {online} cores"
    if one_minute > 0.2 * online:
        return Finding("load", WARNING, seen, "stop other programs: `top` shows them")
    return Finding("load", OK, seen)


def load_average() -> float | None:
    """Of the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def memory(free: int | None, needed: float) -> Finding:
    """In bytes; needed 0: not known."""
    if free is None:
        return Finding("memory", UNKNOWN, _HERE)
    seen = f"{free / 1e9:.1f} GB free" + (f", about {needed / 1e9:.1f} GB needed" if needed else "")
    if needed > free:
        fix = "end other programs, give the container more (--memory), or choose a smaller --profile"
        return Finding("memory", PROBLEM, seen, fix)
    return Finding("memory", OK, seen)


def disk(free: int, needed: int, place: Path, what: str = "disk", option: str = "--data") -> Finding:
    """In bytes, below the first folder of `place` that exists. option: the one that names it."""
    seen = f"{free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB more needed, in {place}"
    if needed > free:
        return Finding(what, PROBLEM, seen, f"make room, or name another folder by {option}")
    return Finding(what, OK, seen)


def writable(what: str, folder: Path, fix: str) -> Finding:
    """Can files be made in this folder, or in the first above it that exists?"""
    try:
        with tempfile.TemporaryFile(dir=above(folder)):
            return Finding(what, OK, f"{folder} can be written")
    except OSError as error:
        return Finding(what, PROBLEM, f"{folder} cannot be written ({error.strerror})", fix)


def clock_source(system: Path = Path("/sys/devices/system")) -> Finding:
    folder = system / "clocksource" / "clocksource0"
    current, offered = _read(folder / "current_clocksource"), _read(folder / "available_clocksource").split()
    if not current:
        return Finding("clock source", UNKNOWN, _HERE)
    if current in _GOOD_CLOCKS:
        return Finding("clock source", OK, current)
    better = next((name for name in _GOOD_CLOCKS if name in offered), "")
    fix = f"echo {better} | sudo tee {folder}/current_clocksource" if better else "boot Linux with tsc=reliable"
    return Finding("clock source", WARNING, f"{current}: reading it takes a system call", fix)


def governor(system: Path = Path("/sys/devices/system")) -> Finding:
    """Of the processor's frequency; virtual machines have none."""
    found = sorted({_read(file) for file in system.glob("cpu/cpu[0-9]*/cpufreq/scaling_governor")} - {""})
    if not found:
        return Finding("CPU governor", UNKNOWN, _HERE)
    if found == ["performance"]:
        return Finding("CPU governor", OK, found[0])
    return Finding("CPU governor", WARNING, ", ".join(found), "sudo cpupower frequency-set -g performance")


def lateness_ns(count: int = 200) -> list[int]:
    """How late sleeps of 100 us end, as the load generator sleeps."""
    late = []
    with precise_sleep():
        for _ in range(count):
            due = time.perf_counter_ns() + _SLEEP_NS
            time.sleep(_SLEEP_NS * 1e-9)
            late.append(time.perf_counter_ns() - due)
    return sorted(late)


def timer_slack(late_ns: Sequence[int]) -> Finding:
    """late_ns: in order, from `lateness_ns`."""
    median, high = late_ns[len(late_ns) // 2], late_ns[len(late_ns) * 99 // 100]
    seen = f"a sleep of 100 us ends {median / 1e3:.0f} us late at the median, {high / 1e3:.0f} us at p99"
    if median > 100_000 or high > 1_000_000:
        fix = "stop other programs; forbid deep sleep states (sudo cpupower idle-set -D 10)"
        return Finding("timer slack", WARNING, seen, fix)
    return Finding("timer slack", OK, seen)


def engine(host: str, sockets: Sequence[Path]) -> Finding:
    """The one that makes images. host: DOCKER_HOST; sockets: where engines listen otherwise, the first one first."""
    if host and not host.startswith("unix://"):
        return Finding("engine", UNKNOWN, f"DOCKER_HOST is {host}: not checked")
    sockets = [Path(host.removeprefix("unix://"))] if host else sockets
    place = next((file for file in sockets if file.exists()), None)
    only = "only images need one"
    if place is None:
        return Finding("engine", WARNING, f"no engine listens at {sockets[0]}; {only}", "install Docker or Podman")
    try:
        return Finding("engine", OK, f"{_version(place)} at {place}")
    except PermissionError:
        fix = "sudo usermod -aG docker $USER, then log in again"
        return Finding("engine", WARNING, f"this user may not use {place}; {only}", fix)
    except (OSError, ValueError, KeyError) as error:
        return Finding("engine", WARNING, f"{place} does not answer ({error}); {only}", "sudo systemctl restart docker")


def _version(place: Path) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(place))
        client.sendall(b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n")
        with client.makefile("rb") as answer:
            body = answer.read().partition(b"\r\n\r\n")[2]
    said = json.loads(body)
    return f"{said.get('Platform', {}).get('Name') or 'engine'} {said['Version']}"


def gpu(facts: dict[str, str], why: str, device: str, driver: Path = Path("/proc/driver/nvidia/version")) -> Finding:
    """facts, why: from `telemetry.find_gpus`, whose package may lack where a GPU can be used all the same."""
    if facts:
        return Finding("GPU", OK, ", ".join(f"{name} {value}" for name, value in facts.items()))
    if device == "cpu":
        return Finding("GPU", OK, f"not used with --device cpu ({why})" if why else "not used with --device cpu")
    if driver.exists():
        return Finding("GPU", WARNING, f"there is a driver, but {why or 'no GPU'}", "pip install './loadgen[gpu]'")
    fix = "install NVIDIA's driver; in a container, NVIDIA's container toolkit and --gpus all"
    return Finding("GPU", PROBLEM, "no NVIDIA driver here", fix)


def gpu_memory(free: Sequence[int], needed: float) -> Finding:
    """In bytes; free: of each GPU that says it; needed 0: not known."""
    if not free:
        return Finding("GPU memory", UNKNOWN, _HERE)
    listed = ", ".join(f"{size / 1e9:.1f}" for size in free)
    seen = f"{listed} GB free" + (f", about {needed / 1e9:.1f} GB needed" if needed else "")
    if needed > max(free):
        return Finding("GPU memory", PROBLEM, seen, "end what else uses the GPU (`nvidia-smi` shows it)")
    return Finding("GPU memory", OK, seen)
