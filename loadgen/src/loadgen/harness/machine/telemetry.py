"""What NVIDIA GPUs do during a test: use, memory and power, sampled through NVML (package `nvidia-ml-py`)."""

from __future__ import annotations

import csv
import importlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from loadgen.contracts import InputError

FILE = "telemetry.csv"
PERIOD_S = 0.5
_MOST_NVLINKS = 18  # of one GPU
_COLUMNS = ("time_s", "gpu", "use_percent", "memory_mib", "power_w")
MEASURES = _COLUMNS[2:]


class Gpus:
    """The GPUs of this machine, by NVML, from the making of this until `close`.

    nvml: the module `pynvml`, or one with the same functions; None: no GPU, and everything is empty.
    What a GPU does not report (power, on some virtual ones) is None. Raises what `nvmlInit` raises.
    """

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml
        self._handles: list[Any] = []
        if nvml is not None:
            nvml.nvmlInit()
            found = (self._asked("nvmlDeviceGetHandleByIndex", n) for n in range(nvml.nvmlDeviceGetCount()))
            self._handles = [handle for handle in found if handle is not None]
        self.facts = self._facts()
        """Name and memory of each, and the driver; as `machine` has its facts."""

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def __len__(self) -> int:
        return len(self._handles)

    def _facts(self) -> dict[str, str]:
        facts = {}
        for number, handle in enumerate(self._handles):
            memory = self._asked("nvmlDeviceGetMemoryInfo", handle)
            size = f", {memory.total / 2**30:.1f} GiB" if memory is not None else ""
            facts[f"gpu {number}"] = f"{_text(self._asked('nvmlDeviceGetName', handle))}{size}"
        if self._handles:
            facts["gpu driver"] = _text(self._asked("nvmlSystemGetDriverVersion"))
        return facts

    def details(self) -> list[dict[str, Any]]:
        """Of each GPU what the driver tells of: name, memory, link to the host, highest clock, links between GPUs."""
        return [{name: value for name, value in self._details(one) if value is not None} for one in self._handles]

    def _details(self, handle: Any) -> Iterator[tuple[str, Any]]:
        name, memory = self._asked("nvmlDeviceGetName", handle), self._asked("nvmlDeviceGetMemoryInfo", handle)
        yield "name", None if name is None else _text(name)
        yield "memory_bytes", None if memory is None else int(memory.total)
        yield "pcie_generation", self._asked("nvmlDeviceGetMaxPcieLinkGeneration", handle)
        yield "pcie_width", self._asked("nvmlDeviceGetMaxPcieLinkWidth", handle)
        yield "clock_mhz", self._asked("nvmlDeviceGetMaxClockInfo", handle, 1)  # of the processors: NVML_CLOCK_SM
        links = [self._asked("nvmlDeviceGetNvLinkState", handle, link) for link in range(_MOST_NVLINKS)]
        yield "nvlinks", None if len(self) > 1 and all(link is None for link in links) else sum(map(bool, links))

    def free_bytes(self) -> list[int | None]:
        """Memory that each GPU has free now."""
        found = [self._asked("nvmlDeviceGetMemoryInfo", handle) for handle in self._handles]
        return [None if memory is None else int(memory.free) for memory in found]

    def sample(self) -> list[tuple[float | None, float | None, float | None]]:
        """(use in %, memory in MiB, power in W) of each GPU now."""
        return [self._measure(handle) for handle in self._handles]

    def _measure(self, handle: Any) -> tuple[float | None, float | None, float | None]:
        use = self._asked("nvmlDeviceGetUtilizationRates", handle)
        memory = self._asked("nvmlDeviceGetMemoryInfo", handle)
        power = self._asked("nvmlDeviceGetPowerUsage", handle)
        return (
            None if use is None else float(use.gpu),
            None if memory is None else memory.used / 2**20,
            None if power is None else power / 1000,  # from mW
        )

    def _asked(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, function)(*arguments)
        except (self._nvml.NVMLError, AttributeError):  # an older package has fewer functions
            return None


def _text(value: object) -> str:
    """Old NVML packages answer in bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def find_gpus() -> tuple[Gpus, str]:
    """(the GPUs; why there are none, or "")."""
    try:
        nvml = importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return Gpus(), "the package nvidia-ml-py is not installed: pip install './loadgen[gpu]'"
    try:
        return Gpus(nvml), ""
    except nvml.NVMLError as error:
        return Gpus(), f"no NVIDIA driver answers ({error})"


class Sampling:
    """Samples GPUs on a thread of its own while the context lasts, then writes `telemetry.csv` into folder.

    Without GPUs it does nothing. Times are in seconds since the context began.
    """

    def __init__(self, gpus: Gpus, folder: Path, period_s: float = PERIOD_S) -> None:
        self._gpus, self._folder, self._period_s = gpus, folder, period_s
        self._rows: list[tuple[float, int, float | None, float | None, float | None]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)

    def __enter__(self) -> Sampling:
        (self._folder / FILE).unlink(missing_ok=True)  # an earlier run's
        if len(self._gpus):
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not len(self._gpus):
            return
        self._end.set()
        self._thread.join()
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / FILE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows([f"{row[0]:.3f}", row[1], *map(_number, row[2:])] for row in self._rows)

    def _work(self) -> None:
        began = time.monotonic()
        for number in range(1, 1 << 62):
            at = time.monotonic() - began
            self._rows += [(at, gpu, *measured) for gpu, measured in enumerate(self._gpus.sample())]
            if self._end.wait(max(0.0, began + number * self._period_s - time.monotonic())):
                return


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


@dataclass(frozen=True)
class Telemetry:
    """The samples of a test, in columns: one row a sample and GPU; NaN where a GPU reports nothing."""

    time_s: npt.NDArray[np.float64]
    gpu: npt.NDArray[np.int64]
    measures: Mapping[str, npt.NDArray[np.float64]]
    """Name as in MEASURES -> values."""

    def of(self, gpu: int, measure: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(times, values) of one GPU, where it reports them."""
        values = self.measures[measure]
        chosen = (self.gpu == gpu) & ~np.isnan(values)
        return self.time_s[chosen], values[chosen]

    def summary(self) -> list[dict[str, Any]]:
        """A row a GPU: its number, and of each measure it reports the mean and the highest."""
        return [{"gpu": gpu, **self._row(gpu)} for gpu in sorted(set(self.gpu.tolist()))]

    def _row(self, gpu: int) -> dict[str, dict[str, float]]:
        found = {name: self.of(gpu, name)[1] for name in MEASURES}
        return {
            name: {"mean": round(float(values.mean()), 3), "max": round(float(values.max()), 3)}
            for name, values in found.items()
            if len(values)
        }


def read(folder: Path) -> Telemetry | None:
    """What `telemetry.csv` in this folder has; None without one. Raises InputError if it is damaged."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            head, *rows = csv.reader(opened)
        return _parsed(head, rows)
    except (ValueError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} is damaged ({error}): remove it, or run again") from error


def _parsed(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Telemetry | None:
    if tuple(head) != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
        raise ValueError(f"its columns are {', '.join(head)}, not {', '.join(_COLUMNS)}")
    if not rows:
        return None
    times, gpus, *measures = zip(*rows, strict=True)
    return Telemetry(
        np.array(times, np.float64),
        np.array(gpus, np.int64),
        {
            name: np.array([value or "nan" for value in values], np.float64)
            for name, values in zip(MEASURES, measures, strict=True)
        },
    )
