"""What a round says about one model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loadgen.rules.accuracy import Limits, Metric, RulesError
from loadgen.settings import Scenario


@dataclass(frozen=True)
class TokenLimits:
    """The most that the 99th percentile of a token benchmark's Server latencies may be."""

    first_ns: int
    """To the first token."""
    each_ns: int
    """For each token after it."""


@dataclass(frozen=True)
class ModelRules:
    """What a round says about one model."""

    model: str
    """Its name in config files."""
    benchmark: str
    """Its name in result folders, without "-99" or "-99.9"."""
    performance_sample_count: int
    """The fewest samples that a performance run draws from."""
    dataset_size: int
    """Samples of the data set: an accuracy run takes each once."""
    offline_min_samples: int
    """The fewest samples of an Offline run."""
    server_latency_ns: int | None
    """The most that a Server run may set as its target latency; None: the round has no Server result of it."""
    token_limits: TokenLimits | None
    """None: its tokens are not timed."""
    interactive_limits: TokenLimits | None
    """Of the Interactive scenario, a Server run under tighter limits; None: there is none."""
    compliance: tuple[str, ...]
    """Tests that each closed result needs: "TEST01" ..."""
    logged_samples: int
    """Answers that TEST01 logs; 0: it has no such test."""
    audit: Mapping[str, Mapping[str, Mapping[str, int]]]
    """Test -> what its audit.config sets for this model besides: scenario or "*" -> key -> value."""
    scenarios: Mapping[str, tuple[Scenario, ...]]
    """Category ("datacenter", "edge") -> required scenarios; a missing category is not offered."""
    optional_scenarios: Mapping[str, tuple[Scenario, ...]]
    """Category -> those that a result may have besides."""
    one_of: Mapping[str, tuple[str, ...]]
    """Category -> names of optional scenarios of which a result must have one; Interactive may be among them."""
    category_ratios: Mapping[str, tuple[float, ...]]
    """Category -> ratios to the reference that may be claimed there."""
    metrics: Mapping[str, Metric]
    accuracy_line: str
    """Format string of what the accuracy script prints."""
    result_keys: Mapping[Scenario, str]
    """The key of the detail log that a result is read from."""
    checked_min_queries: Mapping[Scenario, int]
    """The least min_query_count; the official checker does not ask for it where early stopping decides."""
    images: tuple[int, ...]
    """Samples whose images a result holds."""
    conf: Mapping[str, Mapping[str, float]]
    """What its config sets: scenario or "*" -> key -> value."""

    @property
    def interactive_conf(self) -> Mapping[str, Mapping[str, float]]:
        """What the config sets for the Interactive scenario, which it calls a model; empty: there is none."""
        tight = self.interactive_limits
        if tight is None:
            return {}
        limits = {"ttft_latency": tight.first_ns // 1_000_000, "tpot_latency": tight.each_ns // 1_000_000}
        return {"*": self.conf["*"], "Server": {**self.conf["Server"], **limits}}

    @property
    def offered(self) -> frozenset[Scenario]:
        """All scenarios that a result may have, required or not."""
        kinds = (*self.scenarios.values(), *self.optional_scenarios.values())
        return frozenset(scenario for scenarios in kinds for scenario in scenarios)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ratios of all categories, lowest first."""
        return tuple(sorted({ratio for ratios in self.category_ratios.values() for ratio in ratios}))

    @property
    def targets(self) -> Mapping[str, float]:
        """Metric -> the FP32 reference's score."""
        return {name: metric.reference for name, metric in self.metrics.items()}

    def limits(self, ratio: float, reference: Mapping[str, float] | None = None) -> dict[str, Limits]:
        """Metric -> lowest and highest score that passes. Raises RulesError for an unknown ratio.

        reference: metric -> score of another model than the rules', as of a miniature.
        """
        if ratio not in self.ratios:
            raise RulesError(f"{self.model}: no ratio {ratio}; there are {listed(map(str, self.ratios))}")
        return {name: metric.limits(ratio, (reference or {}).get(name)) for name, metric in self.metrics.items()}

    def write_accuracy(self, scores: Mapping[str, float]) -> str:
        """The line of accuracy.txt, readable by the official checker, from plain or numpy numbers."""
        try:
            # item(): numpy's own spelling of a number is not the official one
            return self.accuracy_line.format_map({name: _plain(score) for name, score in scores.items()})
        except KeyError as error:
            raise RulesError(f"{self.model}: no score {error}; there are {listed(scores)}") from error

    def read_accuracy(self, text: str) -> dict[str, float]:
        """Metric -> score, of those found in the lines of accuracy.txt; the last mention counts."""
        found = {}
        for line in text.splitlines():
            for name, metric in self.metrics.items():
                match = re.search(metric.regex, line)
                if match:
                    found[name] = float(match[1])
        return found


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _plain(score: Any) -> Any:
    return score.item() if hasattr(score, "item") else score
