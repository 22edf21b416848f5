"""Judged scores: metrics, their limits, and whether the scores of an accuracy run pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from loadgen.errors import InputError


class RulesError(InputError):
    """A round, model, score or ratio that the rules do not have; the message lists those they have."""


Limits: TypeAlias = "tuple[float | None, float | None]"
"""The lowest and the highest score that passes; None: that side is open."""


@dataclass(frozen=True)
class Accuracy:
    """The scores of one accuracy test, and whether they pass."""

    values: Mapping[str, float]
    """Every score that was computed, judged or not."""
    limits: Mapping[str, Limits]
    """Of each judged score."""
    ratio: float
    """The share of the reference that is claimed."""

    @property
    def met(self) -> bool:
        return all(self.passes(name) for name in self.limits)

    def passes(self, name: str) -> bool:
        """Is this judged score within its limits? Not a number passes nothing."""
        value, (low, high) = self.values[name], self.limits[name]
        return (low is None or value >= low) and (high is None or value <= high) and not math.isnan(value)

    def target(self, name: str) -> str:
        """`>= 91.207`, `<= 23.950`, `23.011 to 23.950`; empty: this score is not judged."""
        low, high = (None if limit is None else f"{limit:.3f}" for limit in self.limits.get(name, (None, None)))
        if low and high:
            return f"{low} to {high}"
        return f">= {low}" if low else f"<= {high}" if high else ""

    def __str__(self) -> str:
        """`f1 92.129 >= 91.207: met`."""
        parts = (self._compared(name) for name in self.limits)
        return f"{', '.join(parts)}: {'met' if self.met else 'MISSED'}"

    def _compared(self, name: str) -> str:
        value, target = f"{name} {self.values[name]:.3f}", self.target(name)
        if " to " in target:
            return f"{value} {'in' if self.passes(name) else 'not in'} {target}"
        if not self.passes(name):
            target = target.replace(">=", "<").replace("<=", ">")
        return f"{value} {target}"


@dataclass(frozen=True)
class Metric:
    """One judged score of an accuracy run."""

    name: str
    """As in `score(...)` and in the accuracy line."""
    official: str
    """Its name in the official submission checker."""
    reference: float
    """The FP32 reference model's score, in the unit of the accuracy line."""
    regex: str
    """Finds the score in a line of accuracy.txt: `re.search`, group 1."""
    lower_ratio: float | None = None
    """Lower limit as a share of the reference; None: the ratio that is claimed."""
    upper_ratio: float | None = None
    lower: float | None = None
    """Lower limit itself, where the rules write it out."""
    upper: float | None = None
    max_change: float | None = None
    """Where TEST01's answers differ: the largest relative change of this score; None: as the test says."""

    def limits(self, ratio: float, reference: float | None = None) -> Limits:
        """Lowest and highest score that passes when `ratio` (0.99, 0.999) is claimed.

        reference: of another model than the rules', whose limits are the same shares of it.
        """
        if reference is None:
            reference = self.reference
        elif self.lower is not None or self.upper is not None:  # written out for the rules' own model
            shares = (None if limit is None else limit / self.reference for limit in (self.lower, self.upper))
            lower, upper = (None if share is None else reference * share for share in shares)
            return lower, upper
        share = ratio if self.lower_ratio is None else self.lower_ratio
        lower = reference * share if self.lower is None else self.lower
        if self.upper is not None:
            return lower, self.upper
        return lower, None if self.upper_ratio is None else reference * self.upper_ratio
