"""Which cases were compared, as a small table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cases import Case
from official import Observed

from loadgen.settings import Mode, Scenario

_MODES = (Mode.PerformanceOnly, Mode.AccuracyOnly, Mode.SubmissionRun)


@dataclass
class Table:
    """Counts of compared cases."""

    cases: int = 0
    mismatches: int = 0
    queries: int = 0
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)

    def add(self, case: Case, seen: Observed, found: list[str]) -> None:
        self.cases += 1
        self.mismatches += bool(found)
        self.queries += len(seen.queries)
        self.cells[case.settings.scenario.name, case.settings.mode.name] += 1
        self.flags.update(case.flags())
        for key in ("generic_message", "error_runtime"):
            for text in seen.values(key):
                if "Ending " in text:
                    self.endings[text.split("Ending ")[1].split(".")[0]] += 1

    def __str__(self) -> str:
        rows = [("", *(mode.name for mode in _MODES))]
        rows += [(s.name, *(str(self.cells[s.name, m.name]) for m in _MODES)) for s in Scenario]
        lines = ["  ".join(f"{cell:>15}" for cell in row) for row in rows]
        for counts in (self.flags, self.endings):
            lines += [f"{count:6}  {name}" for name, count in counts.most_common()]
        return "\n".join([*lines, f"{self.cases} cases, {self.queries} queries, {self.mismatches} mismatches"])
