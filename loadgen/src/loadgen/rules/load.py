"""Reads a round's TOML file into `Round`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from loadgen.rules.accuracy import Metric, RulesError
from loadgen.rules.model import ModelRules, TokenLimits, listed
from loadgen.rules.round import ComplianceTest, Layout, Round, SubmissionRules
from loadgen.settings import Revision, Scenario

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MS_TO_NS = 1_000_000


def round_names() -> tuple[str, ...]:
    """The rounds whose rules are here, oldest first."""
    names = (entry.name for entry in resources.files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


@cache
def load_round(name: str) -> Round:
    """The rules of a round, such as "v4.0". Raises RulesError that lists the rounds."""
    if name not in round_names():
        raise RulesError(f"no rules for round {name!r}; there are {listed(round_names())}")
    data = _read(name)
    return Round(
        name=data["name"],
        revision=Revision(data["revision"]),
        seeds=MappingProxyType(data["seeds"]),
        test05_seeds=MappingProxyType(data["test05_seeds"]),
        scenarios=_by_scenario(data["scenarios"]),
        models=MappingProxyType({model: _model_rules(model, data) for model in data["models"]}),
        high_accuracy_ratio=data["high_accuracy_ratio"],
        hash_regex=data["hash_regex"],
        hash_line=data["hash_line"],
        early_stopping=data["early_stopping"],
        ignored_errors=tuple(data.get("ignored_errors", ())),
        absent=MappingProxyType(data.get("absent", {})),
        aliases=MappingProxyType({alias: known for known, names in data["aliases"].items() for alias in names}),
        tests=MappingProxyType({test: _compliance_test(test, rules) for test, rules in data["tests"].items()}),
        submission=_submission(data["submission"], data["name"]),
    )


def _submission(data: Mapping[str, Any], name: str) -> SubmissionRules:
    asked = [field for since, fields in data["system_fields"].items() if since <= name for field in fields]
    layout = Layout(**{key: _frozen(value) for key, value in data["layout"].items()})
    own = {**data, "system_fields": asked, "layout": layout}
    return SubmissionRules(**{key: _frozen(value) for key, value in own.items()})


def _read(name: str) -> dict[str, Any]:
    """A round's file, laid on that of the round which it differs from."""
    data = tomllib.loads(resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    if "based_on" not in data:
        return data
    base = _read(data.pop("based_on"))
    for path in data.pop("without", ()):
        *tables, last = path.split(".")
        table = base
        for key in tables:
            table = table[key]
        del table[last]
    return _laid(base, data)


def _laid(base: dict[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` on `base`: tables are merged, all else is replaced."""
    for key, value in data.items():
        base[key] = _laid(base.get(key, {}), value) if isinstance(value, dict) else value
    return base


def _by_scenario(data: Mapping[str, Any]) -> Mapping[Scenario, Any]:
    return MappingProxyType({Scenario[name]: value for name, value in data.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _compliance_test(name: str, data: Mapping[str, Any]) -> ComplianceTest:
    changes = {float(ratio): share for ratio, share in data.get("max_score_change", {}).items()}
    below = _by_scenario(data.get("relaxed_below", {}))
    return ComplianceTest(name, **{**data, "max_score_change": MappingProxyType(changes), "relaxed_below": below})


def _model_rules(model: str, round_: Mapping[str, Any]) -> ModelRules:
    data = round_["models"][model]
    categories, latency = data["categories"], data.get("server_latency")
    offline = data.get("offline_min_samples", round_["offline_min_samples"])
    conf = _conf_of(data, offline)
    return ModelRules(
        model=model,
        benchmark=data["benchmark"],
        performance_sample_count=data["performance_sample_count"],
        dataset_size=data["dataset_size"],
        offline_min_samples=offline,
        server_latency_ns=latency * _MS_TO_NS if latency and _offers(categories, "Server") else None,
        token_limits=_token_limits(conf.get("Server", {})),
        interactive_limits=_token_limits(data.get("interactive", {})),
        compliance=tuple(data["compliance"]),
        logged_samples=data.get("logged_samples", 0),
        audit=MappingProxyType(data.get("audit", {})),
        scenarios=_scenarios(categories, "scenarios"),
        optional_scenarios=_scenarios(categories, "optional"),
        one_of=MappingProxyType({name: tuple(rules.get("one_of", ())) for name, rules in categories.items()}),
        category_ratios=MappingProxyType({name: tuple(rules["ratios"]) for name, rules in categories.items()}),
        metrics=MappingProxyType({name: Metric(name, **rules) for name, rules in data["metrics"].items()}),
        accuracy_line=data["accuracy_line"],
        result_keys=_by_scenario({**round_["result_keys"], **data.get("result_keys", {})}),
        checked_min_queries=_by_scenario({**round_["checked_min_queries"], **data.get("checked_min_queries", {})}),
        images=tuple(data.get("images", ())),
        conf=MappingProxyType(conf),
    )


def _scenarios(categories: Mapping[str, Any], kind: str) -> Mapping[str, tuple[Scenario, ...]]:
    return MappingProxyType(
        {name: tuple(Scenario[each] for each in rules.get(kind, ())) for name, rules in categories.items()}
    )


def _offers(categories: Mapping[str, Any], scenario: str) -> bool:
    return any(scenario in (*rules["scenarios"], *rules.get("optional", ())) for rules in categories.values())


def _token_limits(keys: Mapping[str, float]) -> TokenLimits | None:
    if "ttft_latency" not in keys:
        return None
    return TokenLimits(int(keys["ttft_latency"]) * _MS_TO_NS, int(keys["tpot_latency"]) * _MS_TO_NS)


def _conf_of(data: Mapping[str, Any], offline_min_samples: int) -> dict[str, Mapping[str, float]]:
    """The config that a model's limits come to, with what its own `conf` says besides or instead."""
    conf: dict[str, dict[str, float]] = {
        "*": {"performance_sample_count_override": data["performance_sample_count"]},
        "Server": {"target_latency": data["server_latency"]} if "server_latency" in data else {},
        "Offline": {"min_query_count": offline_min_samples},
    }
    for scope, keys in data.get("conf", {}).items():
        conf.setdefault(scope, {}).update(keys)
    return {scope: MappingProxyType(keys) for scope, keys in conf.items() if keys}
