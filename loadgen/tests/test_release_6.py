"""The rules that release 6 has built in, without its wheel (`parity/test_release_6.py` compares with it)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import loadgen.compat as old
import loadgen.compat.release_6 as lg
from loadgen.compat import config
from loadgen.rules import load_round
from loadgen.settings import Revision

RULES = load_round("v6.1")
REPEATED = "Multiple conf files are used. This is not valid for official submission."


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file has been read yet."""
    monkeypatch.setattr(config, "_user_files", [0])
    monkeypatch.setattr(config, "_errors", [])


@pytest.fixture
def user_conf(tmp_path: Path) -> str:
    path = tmp_path / "user.conf"
    path.write_text("*.Server.target_qps = 77\n*.*.min_query_count = 5\n*.*.qsl_rng_seed = 9\n")
    return str(path)


def seeds(settings: Any) -> dict[str, int]:
    return {name: getattr(settings, name) for name in RULES.seeds}


def test_its_settings_follow_release_6_and_have_the_same_names() -> None:
    assert lg.TestSettings().revision is Revision.V6_0
    assert old.TestSettings().revision is Revision.V4_0
    assert set(lg.__all__) == set(old.__all__)
    assert all(hasattr(lg, name) for name in lg.__all__)


def test_a_user_conf_comes_after_the_rules_and_cannot_set_seeds(user_conf: str) -> None:
    settings = lg.TestSettings()
    assert settings.FromConfig(user_conf, "bert", "Server") == 0
    assert (settings.server_target_qps, settings.min_query_count) == (77.0, 5)
    assert (settings.min_duration_ms, settings.server_target_latency_ns) == (600_000, 130_000_000)
    assert settings.performance_sample_count_override == 10_833
    assert seeds(settings) == dict(RULES.seeds)
    assert config.errors_so_far() == []


def test_the_rules_alone_are_applied_whatever_the_path() -> None:
    settings = lg.TestSettings()
    assert settings.FromConfig("/nowhere", "bert", "Server", 0) == 0
    assert seeds(settings) == dict(RULES.seeds)
    assert settings.server_target_qps == 1.0


def test_another_file_is_read_alone(user_conf: str) -> None:
    settings = lg.TestSettings()
    assert settings.FromConfig(user_conf, "bert", "Server", 2) == 0
    assert (settings.server_target_qps, settings.min_duration_ms) == (77.0, 10_000)
    assert seeds(settings) == dict.fromkeys(RULES.seeds, 0)


def test_a_second_user_conf_is_an_error_and_has_no_rules(user_conf: str) -> None:
    lg.TestSettings().FromConfig(user_conf, "bert", "Server")
    settings = lg.TestSettings()
    assert settings.FromConfig(user_conf, "bert", "Server", 1) == 0
    assert seeds(settings) == dict.fromkeys(RULES.seeds, 0)
    assert config.errors_so_far() == [REPEATED]


def test_a_user_conf_that_is_not_there_leaves_the_rules(tmp_path: Path) -> None:
    settings = lg.TestSettings()
    assert settings.FromConfig(str(tmp_path / "none"), "bert", "Server") == -2
    assert seeds(settings) == dict(RULES.seeds)


@pytest.mark.parametrize("model", ["gptj", "rnnt"])
def test_a_model_that_the_round_has_dropped_keeps_its_last_rules(model: str) -> None:
    settings = lg.TestSettings()
    settings.FromConfig("", model, "Offline", 0)
    assert settings.performance_sample_count_override == {"gptj": 13_368, "rnnt": 2513}[model]
    assert config.errors_so_far() == []


def test_a_model_without_rules_is_an_error() -> None:
    settings = lg.TestSettings()
    settings.FromConfig("", "yolo", "Offline", 0)
    assert seeds(settings) == dict(RULES.seeds)
    (error,) = config.errors_so_far()
    assert "no rules for model yolo in this package" in error
