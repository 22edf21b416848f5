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
        settings = _with_rules(round_name, model, scenario, settings, conf_type)
    outcome = read_official(path, model, scenario, settings)
    if round_name is not None and conf_type == _RULES and outcome.code == 0:
        return 0, settings
    _errors.extend(outcome.errors)
    return outcome.code, outcome.settings


def _with_rules(round_name: str, model: str, scenario: str, settings: TestSettings, conf_type: int) -> TestSettings:
    if conf_type == _USER:
        _user_files[0] += 1
        if _user_files[0] > 1:
            _errors.append("Multiple conf files are used. This is not valid for official submission.")
    if conf_type == _RULES or (conf_type == _USER and _user_files[0] == 1):
        from loadgen.rules import load_round  # a program that follows release 4.0 does not need them

        text = load_round(round_name).conf_text().encode()
        settings = apply_official(text, model, scenario, settings, is_rules=True).settings
    return settings


def errors_so_far() -> list[str]:
    """What was wrong since it was asked last: for the log of the test that begins."""
    taken = _errors.copy()
    _errors.clear()
    return taken
