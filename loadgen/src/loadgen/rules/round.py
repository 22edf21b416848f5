"""The rules of one round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loadgen.conf import Text, settings_from
from loadgen.rules.accuracy import RulesError
from loadgen.rules.model import ModelRules, listed
from loadgen.settings import Revision, Scenario, TestSettings


@dataclass(frozen=True)
class ComplianceTest:
    """One audit test: what its run sets, and how its performance is judged."""

    name: str
    conf: Mapping[str, Mapping[str, int]]
    """What its audit.config sets: scenario or "*" -> key -> value."""
    max_gain: float | None = None
    """How much better than the performance run it may be, as a share of that; None: any."""
    max_loss: float | None = None
    as_rate: bool = False
    """Are latencies compared as rates? A gain of a tenth is then a latency of 1 / 1.1, not of 0.9."""
    relaxed: float | None = None
    """The share that replaces both for very short latencies."""
    relaxed_below: Mapping[Scenario, int] = field(default_factory=dict)
    """The longest latency, in ns, that is very short."""
    max_score_change: Mapping[float, float] = field(default_factory=dict)
    """Ratio that is claimed -> largest relative change of a score, where the answers themselves differ."""
    eos_token: int | None = None
    """The token that ends an answer."""
    reference: str = ""
    """The test whose run it is compared with, and whose folder the verdict lies in; empty: the performance run."""
    any_length: bool = False
    """Does the run end when its samples do? It need not be VALID then, and percentiles themselves are compared."""


@dataclass(frozen=True)
class Layout:
    """Folders of a submitter, and in which of them what belongs to a result lies."""

    folders: tuple[str, ...]
    code: str
    measurements: str
    """With <system>/<model>/<scenario>/ below it, as results/ has; it may be results/ itself."""
    measurements_file: str
    """On weights and data types; with fields in braces for the names of system, implementation and scenario."""
    compliance: str


@dataclass(frozen=True)
class SubmissionRules:
    """What a round's result tree holds: names of files and fields, and sizes. A `*` stands for any characters."""

    layout: Layout
    divisions: tuple[str, ...]
    statuses: tuple[str, ...]
    """Of a system: available, preview, rdi."""
    system_types: tuple[str, ...]
    performance_files: tuple[str, ...]
    performance_optional: tuple[str, ...]
    accuracy_files: tuple[str, ...]
    measurement_files: tuple[str, ...]
    power_performance_files: tuple[str, ...]
    power_files: tuple[str, ...]
    power_measurement_files: tuple[str, ...]
    test01_accuracy_files: tuple[str, ...]
    test01_score_files: tuple[str, ...]
    """Besides, if answers differ."""
    ignored_files: tuple[str, ...]
    """Tolerated wherever files are listed."""
    max_file_bytes: int
    max_accuracy_log_bytes: int
    kept_accuracy_log_bytes: int
    """Of a shortened accuracy log, at each end."""
    network_sut_name: str
    implementation_fields: tuple[str, ...]
    system_fields: tuple[str, ...]
    may_be_empty: tuple[str, ...]
    """Of the system's fields."""
    power_fields: tuple[str, ...]
    network_fields: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """The rules of one round."""

    name: str
    revision: Revision
    """The official LoadGen whose behaviour is followed."""
    seeds: Mapping[str, int]
    """`TestSettings` field -> seed."""
    test05_seeds: Mapping[str, int]
    """Empty: the round has no TEST05."""
    scenarios: Mapping[Scenario, Mapping[str, float]]
    """What every model's config sets: key -> value."""
    models: Mapping[str, ModelRules]
    high_accuracy_ratio: float
    hash_regex: str
    hash_line: str
    early_stopping: bool
    """Does it decide on SingleStream, MultiStream and Server?"""
    ignored_errors: tuple[str, ...]
    """Texts of errors in a detail log that do not count."""
    absent: Mapping[str, str]
    """Models and scenarios of other rounds -> why this one has none."""
    aliases: Mapping[str, str]
    """Name of a model in the open division -> the `benchmark` that it counts as."""
    tests: Mapping[str, ComplianceTest]
    submission: SubmissionRules

    def model(self, name: str) -> ModelRules:
        """The rules of one model. Raises RulesError that lists the models."""
        if name not in self.models:
            why = f" ({self.absent[name]})" if name in self.absent else ""
            raise RulesError(f"round {self.name} has no model {name!r}{why}; it has {listed(self.models)}")
        return self.models[name]

    def benchmark_name(self, model: str, ratio: float) -> str:
        """The name of a result's folder: "resnet", "bert-99", "bert-99.9"."""
        rules = self.model(model)
        rules.limits(ratio)  # an unknown ratio has no name
        if self.high_accuracy_ratio not in rules.ratios:
            return rules.benchmark
        return f"{rules.benchmark}-{'99.9' if ratio == self.high_accuracy_ratio else '99'}"

    def of_benchmark(self, name: str) -> tuple[ModelRules, float] | None:
        """The model and ratio that a result's folder is named for; None: there is none."""
        for model, rules in self.models.items():
            for ratio in rules.ratios:
                if self.benchmark_name(model, ratio) == name:
                    return rules, ratio
        return None

    def min_duration_ms(self, scenario: Scenario) -> int:
        """The shortest run that counts."""
        return int(self.scenarios[scenario]["min_duration"])

    def settings(self, model: str, scenario: Scenario, base: TestSettings | None = None) -> TestSettings:
        """`base` with what the rules set for this model and scenario."""
        self.model(model)
        return settings_from([self.text()], model, scenario, base or TestSettings(revision=self.revision))

    def audit_text(self, test: str, model: str) -> str:
        """The audit.config of a compliance test, which the official LoadGen reads too."""
        rules, scopes = self.model(model), dict(self.tests[test].conf)
        if test == "TEST01":
            scopes["*"] = {**scopes["*"], "accuracy_log_sampling_target": rules.logged_samples}
        for scope, keys in rules.audit.get(test, {}).items():
            scopes[scope] = {**scopes.get(scope, {}), **keys}
        lines = [f"*.{scope}.{key} = {value}" for scope, keys in scopes.items() for key, value in keys.items()]
        return "\n".join(lines) + "\n"

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
        named = {name: rules.conf for name, rules in self.models.items()}
        named |= {f"{name}-interactive": rules.interactive_conf for name, rules in self.models.items()}
        for name, conf in named.items():
            lines += [""] if conf else []
            for scope, keys in conf.items():
                lines += [f"{name}.{scope}.{key} = {value}" for key, value in keys.items()]
        return "\n".join(lines) + "\n"
