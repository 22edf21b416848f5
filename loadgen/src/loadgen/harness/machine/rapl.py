"""What processors say that they used: the energy counters of Linux' power capping, where they may be read."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

FILE = "energy.json"
PERIOD_S = 20.0  # a counter of 262 kJ comes round after four minutes at a kilowatt
_ROOT = Path("/sys/class/powercap")


class Counting:
    """Counts the processors' energy while the context lasts, then writes `energy.json` into folder.

    Without counters that may be read it does nothing.
    """

    def __init__(self, folder: Path, root: Path = _ROOT, period_s: float = PERIOD_S) -> None:
        self._folder, self._period_s = folder, period_s
        self._zones = {
            zone: _text(zone / "name") for zone in sorted(root.glob("intel-rapl:?")) if _count(zone) is not None
        }
        self._joules = dict.fromkeys(self._zones, 0.0)
        self._last: dict[Path, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="rapl", daemon=True)

    def __enter__(self) -> Counting:
        (self._folder / FILE).unlink(missing_ok=True)  # an earlier run's
        if self._zones:
            self._read()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._zones:
            return
        self._end.set()
        self._thread.join()
        self._read()
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / FILE).write_text(json.dumps({"source": "RAPL", "joules": self.joules}) + "\n")

    @property
    def joules(self) -> Mapping[str, float]:
        """By the name of each package, such as `package-0`."""
        return {self._zones[zone]: joules for zone, joules in self._joules.items()}

    def _work(self) -> None:
        while not self._end.wait(self._period_s):
            self._read()

    def _read(self) -> None:
        for zone in self._zones:
            now = _count(zone)
            before = self._last.get(zone, now)
            if now is not None and before is not None:
                turn = 0 if now >= before else int(_text(zone / "max_energy_range_uj") or 0)
                self._joules[zone] += (now - before + turn) / 1e6
                self._last[zone] = now


def _count(zone: Path) -> int | None:
    """In microjoules. None: it may not be read, as by all but root on most systems."""
    text = _text(zone / "energy_uj")
    return int(text) if text.isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
