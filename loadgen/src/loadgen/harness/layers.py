"""The settings of a run, layer on layer: rules, profile, user.conf, command line. Says where each is from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from loadgen.conf import settings_from
from loadgen.contracts import InputError
from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.rules import load_round
from loadgen.settings import Mode, Scenario, TestSettings, with_test05_seeds


@dataclass(frozen=True)
class Layered:
    """Settings, and for every field that a layer changed the name of the last layer that did."""

    settings: TestSettings
    origin: Mapping[str, str]

    def then(self, name: str, settings: TestSettings) -> Layered:
        """The next layer; only fields that it changes get its name."""
        changed = {
            f.name: name for f in fields(settings) if getattr(settings, f.name) != getattr(self.settings, f.name)
        }
        return Layered(settings, {**self.origin, **changed})


@dataclass(frozen=True)
class Overrides:
    """What the command line says of a test. None leaves a value as it is."""

    duration_s: float | None = None
    qps: float | None = None
    user_conf: Path | None = None
    audit_conf: Path | None = None
    round: str = "v4.0"

    def __post_init__(self) -> None:
        for name, value in (("--qps", self.qps), ("--duration", self.duration_s)):
            if value is not None and not value > 0:
                raise InputError(f"{name} {value:g}: give a number above 0")


def layered(benchmark: Benchmark, profile: Profile, scenario: Scenario, mode: Mode, overrides: Overrides) -> Layered:
    """The settings of one test. Raises InputError, ConfError or SettingsError."""
    model = benchmark.model
    layers = Layered(TestSettings(scenario=scenario, mode=mode), {})
    rules = load_round(overrides.round).settings(model, scenario, layers.settings)
    layers = layers.then(f"rules {overrides.round}", rules)
    layers = layers.then("profile", replace(layers.settings, **profile.settings.get(scenario, {})))
    if overrides.user_conf:
        read = settings_from([overrides.user_conf], model, scenario, layers.settings)
        layers = layers.then(str(overrides.user_conf), read)
    layers = layers.then("command line", replace(layers.settings, **_options(scenario, overrides)))
    if overrides.audit_conf:
        audited = settings_from([overrides.audit_conf], "*", scenario, layers.settings)
        audited = with_test05_seeds(audited) if audited.test05 else audited
        layers = layers.then(str(overrides.audit_conf), audited)
    return layers


def _options(scenario: Scenario, overrides: Overrides) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if overrides.duration_s is not None:
        changed["min_duration_ms"] = round(overrides.duration_s * 1000)
    rate = {Scenario.Server: "server_target_qps", Scenario.Offline: "offline_expected_qps"}
    if overrides.qps is not None and scenario in rate:
        changed[rate[scenario]] = overrides.qps
    return changed
