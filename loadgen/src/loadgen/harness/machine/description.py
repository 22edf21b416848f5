"""What this machine says of itself, by the fields of a submission's system description; the rest is absent."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loadgen.harness.machine.telemetry import Gpus

_NO_ACCELERATOR = (
    "accelerator_model_name accelerator_memory_capacity accelerator_host_interconnect accelerator_frequency "
    "accelerator_memory_configuration accelerator_interconnect accelerator_interconnect_topology "
    "accelerator_on-chip_memories"
).split()
_LOADED, _PSEUDO = "loop ram zram dm- md sr fd nbd".split(), "lo docker veth br- virbr".split()


def describe(gpus: Gpus, root: Path = Path("/")) -> dict[str, str]:
    """Field -> what was found. root: where proc, sys and etc lie."""
    facts: dict[str, str] = {}
    for find in (_processors, _caches, _memory, _storage, _network, _software):
        facts |= {name: value for name, value in find(root) if value}
    return facts | _accelerators(gpus)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _processors(root: Path) -> Iterator[tuple[str, str]]:
    text = _read(root / "proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    yield "host_processor_model_name", name[1].strip() if name else platform.processor()
    sockets = set(re.findall(r"^physical id\s*:\s*(\d+)", text, re.M))
    cores = set(re.findall(r"^physical id\s*:\s*(\d+)(?:\n.+)*?\ncore id\s*:\s*(\d+)", text, re.M))
    if sockets and cores:
        yield "host_processors_per_node", str(len(sockets))
        yield "host_processor_core_count", str(len(cores) // len(sockets))
    highest = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")  # in kHz
    if highest.isdecimal():
        yield "host_processor_frequency", f"{int(highest) / 1e6:.2f} GHz at most"


def _caches(root: Path) -> Iterator[tuple[str, str]]:
    levels = {}
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(folder / name) for name in ("level", "type", "size"))
        if level and size:
            letter = {"Data": "d", "Instruction": "i"}.get(kind, "")
            levels[f"L{level}{letter}"] = size
    yield "host_processor_caches", ", ".join(f"{name} {size}" for name, size in levels.items())


def _memory(root: Path) -> Iterator[tuple[str, str]]:
    total = re.search(r"^MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo"), re.M)
    if total:
        yield "host_memory_capacity", f"{math.ceil(int(total[1]) / 2**20)} GB"


def _storage(root: Path) -> Iterator[tuple[str, str]]:
    """Of the disks, as many as the kernel lists; in a container those of the host."""
    size, kinds = 0, set()
    for disk in sorted((root / "sys/block").glob("*")):
        sectors = _read(disk / "size")  # of 512 bytes
        if not disk.name.startswith(tuple(_LOADED)) and sectors.isdecimal() and int(sectors):
            size += 512 * int(sectors)
            kinds.add(_kind(disk.name, spins=_read(disk / "queue/rotational") == "1"))
    if size:
        yield "host_storage_capacity", f"{size / 1e9:.0f} GB"
        yield "host_storage_type", ", ".join(sorted(kinds))
    elif root == Path("/"):
        yield "host_storage_capacity", f"{shutil.disk_usage(root).total / 1e9:.0f} GB"


def _kind(name: str, spins: bool) -> str:
    """A virtual disk says that it spins, whatever it is."""
    if name.startswith("nvme"):
        return "NVMe SSD"
    return "virtual disk" if name.startswith(("vd", "xvd")) else "hard disk" if spins else "SSD"


def _network(root: Path) -> Iterator[tuple[str, str]]:
    """Cards that are devices; a bridge or a tunnel is none."""
    cards = [card for card in sorted((root / "sys/class/net").glob("*")) if not card.name.startswith(tuple(_PSEUDO))]
    real = [card for card in cards if os.path.exists(card / "device")]
    speeds = [_read(card / "speed") for card in real]
    known = sorted({f"{int(speed) / 1000:g} Gb/s" for speed in speeds if speed.isdecimal() and int(speed)})
    if real:
        yield "host_network_card_count", f"{len(real)}x {', '.join(known)}" if known else str(len(real))
    if known:
        yield "host_networking", f"Ethernet, {', '.join(known)}"


def _software(root: Path) -> Iterator[tuple[str, str]]:
    name = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read(root / "etc/os-release"), re.M)
    yield "operating_system", f"{name[1] if name else platform.system()}, kernel {platform.release()}"


def _accelerators(gpus: Gpus) -> dict[str, str]:
    """Of this machine, whether or not a run uses them."""
    if not len(gpus):
        return {"accelerators_per_node": "0", **dict.fromkeys(_NO_ACCELERATOR, "N/A")}
    found = {"accelerators_per_node": str(len(gpus))}
    shown: dict[str, Callable[[Any], str]] = {
        "accelerator_model_name": lambda gpu: str(gpu["name"]),
        "accelerator_memory_capacity": lambda gpu: f"{gpu['memory_bytes'] / 2**30:.0f} GB",
        "accelerator_host_interconnect": lambda gpu: f"PCIe Gen{gpu['pcie_generation']} x{gpu['pcie_width']}",
        "accelerator_frequency": lambda gpu: f"{gpu['clock_mhz']} MHz at most",
        "accelerator_interconnect": lambda gpu: f"NVLink, {gpu['nvlinks']} links" if gpu["nvlinks"] else "N/A",
    }
    for field, show in shown.items():
        values = list(dict.fromkeys(_shown(show, gpu) for gpu in gpus.details()))
        if all(values):
            found[field] = ", ".join(values)
    return found


def _shown(show: Callable[[Any], str], gpu: dict[str, Any]) -> str:
    """Empty if the driver does not tell."""
    try:
        return show(gpu)
    except (KeyError, TypeError):
        return ""
