"""Llama 2 70B on OpenOrca, all in one literal. Targets and limits are the rules' (`loadgen.rules`).

nox -s llama2_70b                                     the miniature: about a minute on 2 cores, ROUGE-1 85.4
nox -s llama2_70b -- run --profile synthetic --device cuda --dtype float8 --batch 640
                                                      70 B random weights on one GPU of 140 GB: no score
nox -s llama2_70b -- run --profile full --data FOLDER --backend endpoint ...
                                                      official files, a server of your own: ROUGE-1 44.4 in FP16
"""

from __future__ import annotations

from bench_llama2_70b.official import INDEX
from bench_llama2_70b.standins import COUNT, DATA, MAX_NEW
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.settings import Scenario

_WHOLE = {"performance_sample_count_override": 0}
_NOTHING_LEARNT = {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0, "tokens_per_sample": 294.4}
_SIZES = {"longest": 2048, "step_tokens": 1024}
"""Tokens: prompts and answers are shorter than 1,024 each; a step computes so many of prompts at the most."""
GFLOP = 79_500.0  # 2 * 69.0e9 * (280 + 294) tokens, and attention

MINI = Profile(
    summary="a Llama of 4 layers on generated instructions, embedded",
    prepare="bench_llama2_70b.standins.miniature:prepare",
    weights="bench_llama2_70b.standins.miniature:write_weights",
    dataset_options={"file": DATA, "max_new_tokens": MAX_NEW},
    model_options={"threads": 1},  # unless --threads says more: a net so small is slower on two cores than on one
    samples=COUNT,
    memory_gb=0.6,
    disk_gb=0.002,
    reference={  # FP32, of the committed weights; measured by tests/test_miniature.py
        "rouge1": 85.3803,
        "rouge2": 74.0785,
        "rougeL": 85.1546,
        "tokens_per_sample": 26.8,
    },
    settings={
        Scenario.SingleStream: {
            "single_stream_expected_latency_ns": 1_000_000.0,  # pre-generates enough for any machine
            "min_duration_ms": 5_000,
            "min_query_count": 64,  # the fewest from which early stopping judges a 90th percentile
            **_WHOLE,
        },
        Scenario.Server: {
            "server_target_qps": 60.0,  # limits on the first token and on those after it are the benchmark's own
            "min_duration_ms": 12_000,
            "min_query_count": 720,  # early stopping wants 662 at the 99th percentile, more if one is late
            **_WHOLE,
        },
        Scenario.Offline: {
            "offline_expected_qps": 1_600.0,  # 880 samples: 2 slow cores take 10 s, and half a second is enough
            "min_duration_ms": 500,
            "min_query_count": 1,
            **_WHOLE,
        },
    },
)

SYNTHETIC = Profile(
    summary="Llama 2 70B with random weights on generated prompts, as many and as long as OpenOrca's",
    prepare="bench_llama2_70b.standins.synthetic:prepare",
    dataset_options={"as_long": True},
    model_options={"seed": 1, **_SIZES},
    samples=24_576,
    memory_gb="bench_llama2_70b.memory:of_70b",
    gflop=GFLOP,
    disk_gb=0.1,
    reference=_NOTHING_LEARNT,
    settings={Scenario.SingleStream: {"single_stream_expected_latency_ns": 5e9}},
)

SYNTHETIC_13B = Profile(
    summary="Llama 2 13B in the same way, for GPUs of 24 to 80 GB",
    prepare="bench_llama2_70b.standins.synthetic:prepare_13b",
    dataset_options={"as_long": True},
    model_options={"seed": 1, **_SIZES},
    samples=24_576,
    memory_gb="bench_llama2_70b.memory:of_13b",
    gflop=14_900.0,  # 2 * 13.0e9 * 574
    disk_gb=0.1,
    reference=_NOTHING_LEARNT,
    settings={Scenario.SingleStream: {"single_stream_expected_latency_ns": 5e9}},
)

FULL = Profile(
    summary="Llama 2 70B chat and OpenOrca from the official files",
    prepare="bench_llama2_70b.assets:prepare",
    model_options=_SIZES,
    is_official=True,
    samples=24_576,
    memory_gb="bench_llama2_70b.memory:of_70b",
    gflop=GFLOP,
    assets="bench_llama2_70b.assets:ASSETS",
)

BENCHMARK = Benchmark(
    name="llama2_70b",
    title="Llama 2 70B text generation",
    model="llama2-70b",
    scenarios=(Scenario.SingleStream, Scenario.Server, Scenario.Offline),
    dataset="bench_llama2_70b.dataset:Dataset",
    backends={
        "pytorch": BackendSpec(
            name="bench_llama2_70b.pytorch.backend:Backend",
            extra="pytorch",
            dtypes=("float32", "bfloat16", "float16", "float8"),
            devices=("cpu", "cuda"),
            batch=32,
            cost_rule="packed",
            spreads=True,
            file=INDEX,
        ),
        "endpoint": BackendSpec(
            name="bench_llama2_70b.backend_endpoint:Backend",
            extra="endpoint",
            dtypes=("served",),  # the server's own affair
            batch=256,
            cost_rule="packed",
        ),
    },
    postprocess="bench_llama2_70b.postprocess",
    accuracy="bench_llama2_70b.accuracy",
    profiles={"mini": MINI, "synthetic": SYNTHETIC, "synthetic_13b": SYNTHETIC_13B, "full": FULL},
    system="loadgen.harness.serving:StreamingSystem",
    train="bench_llama2_70b.standins.train:main",
    train_extra="pytorch",
)
