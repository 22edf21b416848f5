"""What a round asks of each result, gathered from `loadgen.rules` by the names that a submission's folders have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from loadgen.rules import Limits, ModelRules, Round, SubmissionRules, load_round
from loadgen.settings import Scenario

STREAMS = ("SingleStream", "MultiStream")
LOWER = {name.lower(): name for name in (*(scenario.name for scenario in Scenario), "Interactive")}
"""The official checker takes a scenario's folder in lower case too."""
ROUND = "v4.0"
"""The round whose official checker is known here, defects included."""


@dataclass(frozen=True)
class Needs:
    """What a round asks of one result's name, such as "bert-99"."""

    name: str
    rules: ModelRules
    ratio: float

    @cached_property
    def limits(self) -> Mapping[str, Limits]:
        """Judged score -> lowest and highest."""
        return self.rules.limits(self.ratio)

    def required(self, system_type: str) -> frozenset[str] | None:
        """Scenarios that a system of this type must have; None: the model is not offered there."""
        categories = self._categories(system_type)
        names = [scenario.name for category in categories for scenario in self.rules.scenarios[category]]
        return frozenset(names) if categories else None

    def optional(self, system_type: str) -> frozenset[str]:
        more = self.rules.optional_scenarios
        return frozenset(one.name for category in self._categories(system_type) for one in more.get(category, ()))

    def one_of(self, system_type: str) -> frozenset[str]:
        """Scenarios of which there must be one; empty: none need be."""
        return frozenset(
            one for category in self._categories(system_type) for one in self.rules.one_of.get(category, ())
        )

    def _categories(self, system_type: str) -> list[str]:
        """Of the system's, those that offer the model with this ratio."""
        known = self.rules.scenarios
        return [one for one in system_type.split(",") if one in known and self.ratio in self.rules.category_ratios[one]]


class Requirements:
    """One round's."""

    def __init__(self, name: str = ROUND) -> None:
        """Raises RulesError for an unknown round."""
        self.round: Round = load_round(name)
        self.benchmarks: Mapping[str, Needs] = {one.name: one for model in self.round.models for one in self._of(model)}

    @property
    def tree(self) -> SubmissionRules:
        """Names and sizes."""
        return self.round.submission

    @property
    def asks_for_content(self) -> bool:
        """May fields and files be empty no more?"""
        return "*" not in self.tree.may_be_empty

    def _of(self, model: str) -> list[Needs]:
        rules = self.round.models[model]
        return [Needs(self.round.benchmark_name(model, ratio), rules, ratio) for ratio in rules.ratios]

    def named(self, folder: str, own: Mapping[str, str] | None = None) -> Needs | None:
        """What is asked of a model's folder; own: the submitter's names in open. None: no model of the round."""
        return self.benchmarks.get(self.official_name(folder, own))

    def official_name(self, folder: str, own: Mapping[str, str] | None = None) -> str:
        """The round's name of a model, as far as the official checker finds one."""
        if folder in self.benchmarks:
            return folder
        if folder in self.round.aliases:
            return self.round.aliases[folder]
        return (own or {}).get(folder) or _guess(folder)

    def seeds(self, audit: str = "") -> Mapping[str, int]:
        return self.round.test05_seeds if audit == "TEST05" else self.round.seeds


_OF_THE_PAST = ("ssdlite", "ssd-inception", "yolo", "ssd-mobilenet", "ssd-resnet50")


def _guess(folder: str) -> str:
    """From a part of the name, as the official checker does."""
    if any(part in folder for part in _OF_THE_PAST):
        return "ssd-small"
    if "mobilenet" in folder or "efficientnet" in folder or "resnet50" in folder:
        return "resnet"
    if "rcnn" in folder:
        return "ssd-small"
    return next((name for name in ("bert-99.9", "bert-99") if name in folder), folder)
