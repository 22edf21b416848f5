"""The rules of v4.0 as data. Expected numbers are written out again here, from the official suite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadgen.conf import ConfWarning, ignored, read_official
from loadgen.rules import RulesError, load_round, round_names
from loadgen.settings import Revision, Scenario, TestSettings

V4_0 = load_round("v4.0")
MODELS = tuple(V4_0.models)

# (model, scenario) -> what differs from the scenario's own settings.
SERVER_LATENCY_MS = {
    **{"resnet50": 15, "retinanet": 100, "bert": 130, "dlrm-v2": 60, "3d-unet": 10, "rnnt": 1000},
    **{"gptj": 20_000, "stable-diffusion-xl": 20_000, "llama2-70b": 0},
}
EQUAL_ISSUE = {("gptj", "Server"), ("gptj", "SingleStream"), ("llama2-70b", "Server")} | {
    ("3d-unet", scenario.name) for scenario in Scenario
}


def test_models_are_those_of_the_round() -> None:
    assert set(MODELS) == set(SERVER_LATENCY_MS)


def test_bert_server() -> None:
    assert V4_0.settings("bert", Scenario.Server) == TestSettings(
        scenario=Scenario.Server,
        qsl_rng_seed=13281865557512327830,
        sample_index_rng_seed=198141574272810017,
        schedule_rng_seed=7575108116881280410,
        test05_qsl_rng_seed=2376919268182438552,
        test05_sample_index_rng_seed=11176391829184272374,
        test05_schedule_rng_seed=3911940905271271337,
        min_duration_ms=600_000,
        performance_sample_count_override=10833,
        server_target_qps=1.0,
        server_target_latency_ns=130_000_000,
        server_target_latency_percentile=0.99,
        # A config sets the other scenarios' own fields too, as officially.
        single_stream_expected_latency_ns=10_000_000,
        single_stream_target_latency_percentile=0.90,
        multi_stream_expected_latency_ns=80_000_000,
        multi_stream_target_latency_percentile=0.99,
    )


@pytest.mark.parametrize("scenario", Scenario)
@pytest.mark.parametrize("model", MODELS)
def test_settings_of_every_model(model: str, scenario: Scenario) -> None:
    settings = V4_0.settings(model, scenario)
    assert settings.min_duration_ms == 600_000
    assert settings.server_target_latency_ns == SERVER_LATENCY_MS[model] * 1_000_000
    assert settings.sample_concatenate_permutation is ((model, scenario.name) in EQUAL_ISSUE)
    assert settings.use_token_latencies is (model == "llama2-70b")
    assert settings.min_query_count == {
        Scenario.Offline: V4_0.model(model).offline_min_samples,
        Scenario.MultiStream: 662,
    }.get(scenario, 100)
    in_conf = 0 if model == "3d-unet" else V4_0.model(model).performance_sample_count
    assert settings.performance_sample_count_override == in_conf


def test_llama_token_limits() -> None:
    settings = V4_0.settings("llama2-70b", Scenario.Server)
    assert (settings.server_ttft_latency, settings.server_tpot_latency) == (2_000_000_000, 200_000_000)


def test_settings_keep_the_base() -> None:
    base = TestSettings(server_max_async_queries=7, revision=Revision.V6_0)
    settings = V4_0.settings("bert", Scenario.Server, base)
    assert settings.server_max_async_queries == 7
    assert settings.revision is Revision.V6_0
    assert settings.qsl_rng_seed == 13281865557512327830


@pytest.mark.parametrize("scenario", Scenario)
@pytest.mark.parametrize("model", MODELS)
def test_conf_text_read_officially_gives_the_same_settings(model: str, scenario: Scenario, tmp_path: Path) -> None:
    path = tmp_path / "mlperf.conf"
    path.write_text(V4_0.conf_text())
    outcome = read_official(path, model, scenario.name, TestSettings(scenario=scenario))
    assert (outcome.code, outcome.errors) == (0, ())
    assert outcome.settings == V4_0.settings(model, scenario)


def test_no_rule_is_ignored(recwarn: pytest.WarningsRecorder) -> None:
    for model in MODELS:
        V4_0.settings(model, Scenario.Offline)
    assert ignored([V4_0.text()], "bert", Scenario.Server) == []
    assert not [warning for warning in recwarn if warning.category is ConfWarning]


def test_names_and_scenarios_by_category() -> None:
    names = {
        (V4_0.benchmark_name(model, ratio), category): tuple(s.name for s in rules.scenarios[category])
        for model, rules in V4_0.models.items()
        for category, ratios in rules.category_ratios.items()
        for ratio in ratios
    }
    server, stream = ("Server", "Offline"), ("SingleStream", "Offline")
    every = ("SingleStream", "MultiStream", "Offline")
    both: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
    both = {"gptj-99": (server, stream), "gptj-99.9": (server, stream), "3d-unet-99": (("Offline",), stream)}
    both |= {"resnet": (server, every), "retinanet": (server, every), "rnnt": (server, stream)}
    both |= {"bert-99": (server, stream), "stable-diffusion-xl": (server, stream)}
    both |= {"3d-unet-99.9": (("Offline",), stream)}
    only = ("bert-99.9", "dlrm-v2-99", "dlrm-v2-99.9", "llama2-70b-99", "llama2-70b-99.9")
    expected = {(name, "datacenter"): scenarios for name, (scenarios, _) in both.items()}
    expected |= {(name, "edge"): scenarios for name, (_, scenarios) in both.items()}
    expected |= {(name, "datacenter"): server for name in only}
    assert names == expected


def test_compliance_tests() -> None:
    needed = {model: rules.compliance for model, rules in V4_0.models.items()}
    assert needed.pop("resnet50") == ("TEST01", "TEST04", "TEST05")
    assert needed.pop("llama2-70b") == ("TEST06",)
    assert needed.pop("gptj") == needed.pop("stable-diffusion-xl") == ()
    assert set(needed.values()) == {("TEST01", "TEST05")}


@pytest.mark.parametrize(
    ("model", "ratio", "expected"),
    [
        # Left: arithmetic as the official checker does it, so that limits are equal to the last bit.
        ("resnet50", 0.99, {"accuracy": (76.46 * 0.99, None)}),
        ("retinanet", 0.99, {"mAP": (37.55 * 0.99, None)}),
        ("rnnt", 0.99, {"accuracy": ((100 - 7.452) * 0.99, None)}),
        ("bert", 0.99, {"f1": (90.874 * 0.99, None)}),
        ("bert", 0.999, {"f1": (90.874 * 0.999, None)}),
        ("dlrm-v2", 0.999, {"AUC": (80.31 * 0.999, None)}),
        ("3d-unet", 0.999, {"mean": (0.86170 * 0.999, None)}),
        (
            "gptj",
            0.999,
            {
                "rouge1": (42.9865 * 0.999, None),
                "rouge2": (20.1235 * 0.999, None),
                "rougeL": (29.9881 * 0.999, None),
                "gen_len": (4016878 * 0.9, None),
            },
        ),
        (
            "llama2-70b",
            0.99,
            {
                "rouge1": (44.4312 * 0.99, None),
                "rouge2": (22.0352 * 0.99, None),
                "rougeL": (28.6162 * 0.99, None),
                "tokens_per_sample": (294.45 * 0.9, 294.45 * 1.1),
            },
        ),
        (
            "stable-diffusion-xl",
            0.99,
            {"CLIP_SCORE": (31.68631873, 31.81331801), "FID_SCORE": (23.01085758, 23.95007626)},
        ),
    ],
)
def test_accuracy_limits(model: str, ratio: float, expected: dict[str, tuple[float, float]]) -> None:
    assert V4_0.model(model).limits(ratio) == expected


def test_written_out_limits_are_shares_of_the_reference() -> None:
    metrics = V4_0.model("stable-diffusion-xl").metrics
    for name, share in (("CLIP_SCORE", 0.002), ("FID_SCORE", 0.02)):
        reference = metrics[name].reference
        assert metrics[name].limits(0.99) == pytest.approx((reference * (1 - share), reference * (1 + share)))


LINES = {
    "resnet50": "accuracy=76.456%, good=38228, total=50000",
    "retinanet": "mAP=37.550%",
    "bert": '{"exact_match": 83.67, "f1": 90.874}',
    "dlrm-v2": "AUC=80.310%, accuracy=96.600%, good=1, total=2, queries=3",
    "3d-unet": "Accuracy: mean = 0.86170, kidney = 0.9347, tumor = 0.7887",
    "rnnt": "Word Error Rate: 7.452%, accuracy=92.548%",
    "gptj": "{'rouge1': 42.9865, 'rouge2': 20.1235, 'rougeL': 29.9881, 'rougeLsum': 40.1, "
    "'gen_len': 4016878, 'gen_num': 13368}",
    "stable-diffusion-xl": "Accuracy Results: {'FID_SCORE': 23.48046692, 'CLIP_SCORE': 31.74981837}",
    "llama2-70b": "{'rouge1': 44.4312, 'rouge2': 22.0352, 'rougeL': 28.6162, 'rougeLsum': 42.0, "
    "'gen_len': 28158253, 'gen_num': 24576, 'gen_tok_len': 7236403, 'tokens_per_sample': 294.45}",
}
SCORES: dict[str, dict[str, float]] = {
    "resnet50": {"accuracy": 76.456, "good": 38228, "total": 50000},
    "retinanet": {"mAP": 37.55},
    "bert": {"exact_match": 83.67, "f1": 90.874},
    "dlrm-v2": {"AUC": 80.31, "accuracy": 96.6, "good": 1, "total": 2, "queries": 3},
    "3d-unet": {"mean": 0.8617, "kidney": 0.9347, "tumor": 0.7887},
    "rnnt": {"wer": 7.452, "accuracy": 92.548},
    "gptj": {"rouge1": 42.9865, "rouge2": 20.1235, "rougeL": 29.9881, "rougeLsum": 40.1}
    | {"gen_len": 4016878, "gen_num": 13368},
    "stable-diffusion-xl": {"FID_SCORE": 23.48046692, "CLIP_SCORE": 31.74981837},
    "llama2-70b": {"rouge1": 44.4312, "rouge2": 22.0352, "rougeL": 28.6162, "rougeLsum": 42.0}
    | {"gen_len": 28158253, "gen_num": 24576, "gen_tok_len": 7236403, "tokens_per_sample": 294.45},
}


@pytest.mark.parametrize("model", MODELS)
def test_accuracy_line(model: str) -> None:
    rules = V4_0.model(model)
    assert rules.write_accuracy(SCORES[model]) == LINES[model]
    from_numpy: dict[str, Any] = {
        name: np.int64(score) if isinstance(score, int) else np.float64(score) for name, score in SCORES[model].items()
    }
    assert rules.write_accuracy(from_numpy) == LINES[model]
    assert rules.read_accuracy(f"Results\n\n{LINES[model]}\nhash={'0' * 64}\n") == {
        name: SCORES[model][name] for name in rules.metrics
    }


def test_read_accuracy_of_other_text() -> None:
    assert V4_0.model("bert").read_accuracy("accuracy=12%\nmy mAP=3") == {}
    assert V4_0.model("resnet50").read_accuracy("the accuracy=12%") == {}


def test_hash_line() -> None:
    line = V4_0.hash_line.format(sha256="ab" * 32)
    match = re.match(V4_0.hash_regex, line)
    assert match
    assert match[1] == "ab" * 32


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(RulesError, match=r"no rules for round 'v9.9'; there are .*v4.0"):
        load_round("v9.9")
    with pytest.raises(RulesError, match=r"round v4.0 has no model 'brt'; it has resnet50, .*bert"):
        V4_0.settings("brt", Scenario.Server)
    with pytest.raises(RulesError, match=r"bert: no ratio 0\.9; there are 0\.99, 0\.999"):
        V4_0.model("bert").limits(0.9)
    with pytest.raises(RulesError, match="bert: no score 'exact_match'; there are f1"):
        V4_0.model("bert").write_accuracy({"f1": 90.0})


@pytest.mark.parametrize("name", round_names())
def test_rounds_load_once(name: str) -> None:
    assert load_round(name).name == name
    assert load_round(name) is load_round(name)
