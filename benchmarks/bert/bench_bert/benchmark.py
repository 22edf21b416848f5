"""BERT-large on SQuAD v1.1, all in one literal. Targets and limits are the rules' (`loadgen.rules`).

`nox -s bert` runs the miniature: about a minute on 2 cores, F1 92.1.
"""

from __future__ import annotations

from bench_bert.mini import SIZES
from loadgen.harness.benchmark import Benchmark, Profile
from loadgen.settings import Scenario

_WHOLE = {"performance_sample_count_override": 0}  # the rules' 10,833 is the size of SQuAD's dev set

MINI = Profile(
    summary="a BERT of 2 layers on generated questions, embedded",
    prepare="bench_bert.mini.prepare:prepare",
    dataset_options=SIZES,
    model_options={"maker": "bench_bert.mini.prepare:write_weights"},
    samples=598,
    memory_gb=0.5,
    disk_gb=0.001,
    reference={"f1": 92.1286},  # FP32, of the committed weights; measured by tests/test_miniature.py
    settings={
        Scenario.SingleStream: {
            "single_stream_expected_latency_ns": 100_000.0,  # pre-generates enough for any machine
            "min_duration_ms": 10_000,
            "min_query_count": 64,  # the fewest from which early stopping judges a 90th percentile
            **_WHOLE,
        },
        Scenario.Server: {
            "server_target_qps": 90.0,
            "server_target_latency_ns": 130_000_000,  # the benchmark's own limit
            "min_duration_ms": 15_000,
            "min_query_count": 800,  # early stopping wants 662 at the 99th percentile, more if one is late
            **_WHOLE,
        },
        Scenario.Offline: {
            "offline_expected_qps": 20_000.0,  # 22,000 samples: 2 slow cores take 7 s
            "min_duration_ms": 1_000,
            "min_query_count": 1,
            **_WHOLE,
        },
    },
)

SYNTHETIC = Profile(
    summary="BERT-large with random weights on generated questions, as many and as long as SQuAD's",
    prepare="bench_bert.synthetic:prepare",
    model_options={"maker": "bench_bert.synthetic:write_weights"},
    reference={"f1": 0.0},  # nothing was learnt, so no score is expected
    settings={Scenario.SingleStream: {"single_stream_expected_latency_ns": 500_000.0}},  # an H200 takes 1.3 ms
    samples=10_833,
    memory_gb=5.5,  # ONNX Runtime, the hungriest while it loads; measured
    disk_gb=1.4,  # one backend's weights, and the questions
    synthesize="bench_bert.synthetic:synthesize",
)

FULL = Profile(
    summary="BERT-large and SQuAD v1.1 from the official files",
    prepare="bench_bert.assets:prepare",
    is_official=True,
    samples=10_833,
    memory_gb=5.5,
    assets="bench_bert.assets:ASSETS",
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
        "tensorflow": "bench_bert.backend_tensorflow:Backend",
    },
    postprocess="bench_bert.postprocess",
    accuracy="bench_bert.accuracy",
    profiles={"mini": MINI, "synthetic": SYNTHETIC, "full": FULL},
    train="bench_bert.mini.train:main",
)
