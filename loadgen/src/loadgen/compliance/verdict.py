"""What a compliance test came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadgen.settings import Scenario


@dataclass(frozen=True)
class Check:
    """One question of a test."""

    name: str
    """performance, accuracy, score, or what TEST06 looks at."""
    passed: bool
    said: str
    """What was found, beside what was asked."""
    official: str = ""
    """What the official script would have said, where that differs; empty: the same."""

    def __str__(self) -> str:
        return f"{self.said}{f' ({self.official})' if self.official else ''}"


@dataclass(frozen=True)
class Verdict:
    """One test of one scenario."""

    scenario: Scenario
    test: str
    checks: tuple[Check, ...]
    scores: Mapping[float, Check] = field(default_factory=dict)
    """Ratio that is claimed -> whether the logged samples' score changed by too much, asked where answers differ."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Name of a file of the test's folder -> what goes in."""

    def passed(self, ratio: float | None = None) -> bool:
        """For a result that claims this share of the reference; None: for the lowest."""
        if not self.scores:
            return all(check.passed for check in self.checks)
        score = self.scores[min(self.scores) if ratio is None else ratio]
        return score.passed and all(check.passed for check in self.checks if check.name != "accuracy")

    def record(self, ratios: tuple[float, ...]) -> dict[str, Any]:
        """As `compliance.json` has it. ratios: those that the model's results can claim."""
        return {
            "scenario": self.scenario.name,
            "test": self.test,
            "passed": {f"{ratio:g}": self.passed(ratio) for ratio in ratios},
            "checks": [
                {"name": check.name, "passed": check.passed, "said": check.said, "official": check.official}
                for check in (*self.checks, *self.scores.values())
            ],
        }
