"""BERT-large on SQuAD v1.1, all in one literal. Targets and limits are the rules' (`loadgen.rules`).

`nox -s bert` runs the miniature: about a minute on 2 cores, F1 about 93.
"""

from __future__ import annotations

from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.settings import Scenario

from bench_bert.mini import SIZES

MINI = Profile(
    summary="a BERT of 2 layers on generated questions, embedded",
    prepare="bench_bert.mini.prepare:prepare",
    dataset_options=SIZES,
    reference={"f1": 93.0},  # FP32, of the committed weights; measured by tests/test_miniature.py
    settings={
        Scenario.SingleStream: {
            "single_stream_expected_latency_ns": 1_000_000,
            "min_duration_ms": 8_000,
            "min_query_count": 64,  # the rules of early stopping: fewest that judge a 90th percentile
        },
        Scenario.Server: {
            "server_target_qps": 90.0,
            "server_target_latency_ns": 130_000_000,  # the benchmark's own limit
            "min_duration_ms": 10_000,
            "min_query_count": 800,  # early stopping wants 662 at the 99th percentile, more if one is late
        },
        Scenario.Offline: {
            "offline_expected_qps": 1_000.0,
            "min_duration_ms": 8_000,
            "min_query_count": 1,
        },
    },
)

FULL = Profile(
    summary="BERT-large and SQuAD v1.1 from the official files",
    prepare="bench_bert.assets:prepare",
    is_official=True,
)

BENCHMARK = Benchmark(
    name="bert",
    title="BERT-large question answering",
    model="bert",
    scenarios=(Scenario.SingleStream, Scenario.Server, Scenario.Offline),
    dataset="bench_bert.dataset:Dataset",
    backends={
        "onnxruntime": "bench_bert.backend_onnxruntime:Backend",
        "pytorch": "bench_bert.backend_pytorch:Backend",
    },
    postprocess="bench_bert.postprocess",
    accuracy="bench_bert.accuracy",
    profiles={"mini": MINI, "full": FULL},
)
