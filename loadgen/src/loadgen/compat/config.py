"""Config files of a submission. What is wrong with one goes into the log of the next test, as officially."""

from __future__ import annotations

from loadgen.conf import apply_official, read_official
from loadgen.settings import Revision, TestSettings

_ROUND = {Revision.V6_0: "v6.1"}
"""The round whose rules are built into the official release; 4.0 has none built in."""
_RULES, _USER = 0, 1  # conf_type

_errors: list[str] = []
_user_files = [0]  # read by this process


def read(path: str, model: str, scenario: str, settings: TestSettings, conf_type: int) -> tuple[int, TestSettings]:
    """`TestSettings.FromConfig`: its return code, and the settings after it."""
    round_name = _ROUND.get(settings.revision)
    if round_name is not None:
        if conf_type == _USER:
            _user_files[0] += 1
            if _user_files[0] > 1:
                _errors.append("Multiple conf files are used. This is not valid for official submission.")
        if conf_type == _RULES or (conf_type == _USER and _user_files[0] == 1):
            text = _rules_text(round_name, model)
            if f"\n{model}." not in text and model != "*":
                _errors.append(f"no rules for model {model} in this package: of {round_name} only those for all models")
            settings = apply_official(text.encode(), model, scenario, settings, is_rules=True).settings
        if conf_type == _RULES:
            return 0, settings  # whatever the path
    outcome = read_official(path, model, scenario, settings)
    _errors.extend(outcome.errors)
    return outcome.code, outcome.settings


def _rules_text(round_name: str, model: str) -> str:
    """The rules of a round, with those of a model that it has dropped from the last round that had it."""
    from loadgen.rules import load_round, round_names  # a program that follows release 4.0 does not need them

    text = load_round(round_name).conf_text()
    names = round_names()
    for name in reversed(names[: names.index(round_name) + 1]):
        lines = [line for line in load_round(name).conf_text().splitlines() if line.startswith(f"{model}.")]
        if lines:
            return text if name == round_name else "\n".join([text, *lines])
    return text


def errors_so_far() -> list[str]:
    """What was wrong since it was asked last: for the log of the test that begins."""
    taken = _errors.copy()
    _errors.clear()
    return taken
