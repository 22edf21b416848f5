"""The rules of each round, as data: seeds, settings, limits, accuracy targets, categories.

One TOML file a round stands beside this module, and no rule's number stands anywhere else. Models
go by their names in config files ("bert", "dlrm-v2").
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, TypeAlias

from loadgen.conf import Text, settings_from
from loadgen.errors import InputError
from loadgen.settings import Scenario, TestSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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


@dataclass(frozen=True)
class ModelRules:
    """What a round says about one model."""

    model: str
    benchmark: str
    """Its name in result folders, without "-99" or "-99.9"."""
    performance_sample_count: int
    offline_min_samples: int
    server_latency_ns: int | None
    """The most that a Server run may set as its target latency; None: no Server scenario."""
    compliance: tuple[str, ...]
    scenarios: Mapping[str, tuple[Scenario, ...]]
    """Category ("datacenter", "edge") -> required scenarios; a missing category is not offered."""
    category_ratios: Mapping[str, tuple[float, ...]]
    """Category -> ratios to the reference that may be claimed there."""
    metrics: Mapping[str, Metric]
    accuracy_line: str
    """Format string of what the accuracy script prints."""
    conf: Mapping[str, Mapping[str, float]]
    """What its config sets: scenario or "*" -> key -> value."""

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
            raise RulesError(f"{self.model}: no ratio {ratio}; there are {_listed(map(str, self.ratios))}")
        return {name: metric.limits(ratio, (reference or {}).get(name)) for name, metric in self.metrics.items()}

    def write_accuracy(self, scores: Mapping[str, float]) -> str:
        """The line of accuracy.txt, readable by the official checker, from plain or numpy numbers."""
        try:
            # item(): numpy's own spelling of a number is not the official one
            return self.accuracy_line.format_map({name: _plain(score) for name, score in scores.items()})
        except KeyError as error:
            raise RulesError(f"{self.model}: no score {error}; there are {_listed(scores)}") from error

    def read_accuracy(self, text: str) -> dict[str, float]:
        """Metric -> score, of those found in the lines of accuracy.txt; the last mention counts."""
        found = {}
        for line in text.splitlines():
            for name, metric in self.metrics.items():
                match = re.search(metric.regex, line)
                if match:
                    found[name] = float(match[1])
        return found


@dataclass(frozen=True)
class Round:
    """The rules of one round."""

    name: str
    seeds: Mapping[str, int]
    """`TestSettings` field -> seed."""
    test05_seeds: Mapping[str, int]
    scenarios: Mapping[Scenario, Mapping[str, float]]
    """What every model's config sets: key -> value."""
    models: Mapping[str, ModelRules]
    high_accuracy_ratio: float
    hash_regex: str
    hash_line: str

    def model(self, name: str) -> ModelRules:
        """The rules of one model. Raises RulesError that lists the models."""
        if name not in self.models:
            raise RulesError(f"round {self.name} has no model {name!r}; it has {_listed(self.models)}")
        return self.models[name]

    def benchmark_name(self, model: str, ratio: float) -> str:
        """The name of a result's folder: "resnet", "bert-99", "bert-99.9"."""
        rules = self.model(model)
        rules.limits(ratio)  # an unknown ratio has no name
        if len(rules.ratios) == 1:
            return rules.benchmark
        return f"{rules.benchmark}-{'99.9' if ratio == self.high_accuracy_ratio else '99'}"

    def min_duration_ms(self, scenario: Scenario) -> int:
        """The shortest run that counts."""
        return int(self.scenarios[scenario]["min_duration"])

    def settings(self, model: str, scenario: Scenario, base: TestSettings | None = None) -> TestSettings:
        """`base` with what the rules set for this model and scenario."""
        self.model(model)
        return settings_from([self.text()], model, scenario, base or TestSettings())

    def text(self) -> Text:
        """These rules as a source for `loadgen.conf`, so that `explain` can name them as the origin."""
        return Text(f"round {self.name}", self.conf_text())

    def conf_text(self) -> str:
        """These rules as an `mlperf.conf`, which the official LoadGen reads to the same settings."""
        lines = [f"# The rules of round {self.name}. Times are in milliseconds."]
        lines += [f"*.*.{field} = {seed}" for field, seed in self.seeds.items()]
        lines += [f"*.*.test05_{field} = {seed}" for field, seed in self.test05_seeds.items()]
        for scenario, keys in self.scenarios.items():
            lines += ["", *(f"*.{scenario.name}.{key} = {value}" for key, value in keys.items())]
        for name, rules in self.models.items():
            lines.append("")
            for scope, keys in rules.conf.items():
                lines += [f"{name}.{scope}.{key} = {value}" for key, value in keys.items()]
        return "\n".join(lines) + "\n"


def round_names() -> tuple[str, ...]:
    """The rounds whose rules are here, oldest first."""
    names = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


@cache
def load_round(name: str) -> Round:
    """The rules of a round, such as "v4.0". Raises RulesError that lists the rounds."""
    if name not in round_names():
        raise RulesError(f"no rules for round {name!r}; there are {_listed(round_names())}")
    data = tomllib.loads(resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    return Round(
        name=data["name"],
        seeds=MappingProxyType(data["seeds"]),
        test05_seeds=MappingProxyType(data["test05_seeds"]),
        scenarios=MappingProxyType({Scenario[name]: keys for name, keys in data["scenarios"].items()}),
        models=MappingProxyType({model: _model_rules(model, rules) for model, rules in data["models"].items()}),
        high_accuracy_ratio=data["high_accuracy_ratio"],
        hash_regex=data["hash_regex"],
        hash_line=data["hash_line"],
    )


_MS_TO_NS = 1_000_000


def _model_rules(model: str, data: Mapping[str, Any]) -> ModelRules:
    categories = data["categories"]
    latency = data.get("server_latency")
    return ModelRules(
        model=model,
        benchmark=data["benchmark"],
        performance_sample_count=data["performance_sample_count"],
        offline_min_samples=data["offline_min_samples"],
        server_latency_ns=None if latency is None else latency * _MS_TO_NS,
        compliance=tuple(data["compliance"]),
        scenarios=MappingProxyType(
            {name: tuple(Scenario[each] for each in rules["scenarios"]) for name, rules in categories.items()}
        ),
        category_ratios=MappingProxyType({name: tuple(rules["ratios"]) for name, rules in categories.items()}),
        metrics=MappingProxyType({name: Metric(name, **rules) for name, rules in data["metrics"].items()}),
        accuracy_line=data["accuracy_line"],
        conf=MappingProxyType(_conf_of(data)),
    )


def _conf_of(data: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The config that a model's limits come to, with what its own `conf` says besides or instead."""
    conf: dict[str, dict[str, float]] = {
        "*": {"performance_sample_count_override": data["performance_sample_count"]},
        "Server": {"target_latency": data["server_latency"]} if "server_latency" in data else {},
        "Offline": {"min_query_count": data["offline_min_samples"]},
    }
    for scope, keys in data.get("conf", {}).items():
        conf.setdefault(scope, {}).update(keys)
    return {scope: MappingProxyType(keys) for scope, keys in conf.items() if keys}


def _plain(score: Any) -> Any:
    return score.item() if hasattr(score, "item") else score


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
