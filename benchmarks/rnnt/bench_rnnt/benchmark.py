"""RNN-T on LibriSpeech, all in one literal. Targets and limits are the rules' (`loadgen.rules`).

nox -s rnnt                                           the miniature: a minute on 2 cores, word error rate 7.8 %
nox -s rnnt -- run --profile synthetic --device cuda --dtype float16 --batch 2048 --max-cost 300000
                                                      random weights: half an hour, no score
nox -s rnnt -- run --profile full --data FOLDER ...   official files: as long, word error rate 7.45 % in FP32
"""

from __future__ import annotations

from bench_rnnt.official import CHECKPOINT
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.settings import Scenario

_WHOLE = {"performance_sample_count_override": 0}  # the rules' 2,513 is the size of dev-clean

# The encoder takes 27.1e6 for each 30 ms and 58.7e6 for each 60 ms of 6.25 s, the prediction 3.3e6 for each of 93
# labels, the joint 1.4e6 for each of 200 comparisons.
GFLOP = 12.4

MINI = Profile(
    summary="a small RNN-T on synthesised speech, embedded",
    prepare="bench_rnnt.standins.miniature:prepare",
    weights="bench_rnnt.standins.miniature:write_weights",
    model_options={"threads": 1},  # a product of its small matrices is done before a second thread is awake
    samples=256,
    memory_gb=0.6,
    disk_gb=0.02,
    reference={"accuracy": 92.1886},  # FP32, of the committed weights; measured by tests/test_miniature.py
    settings={
        Scenario.SingleStream: {
            "single_stream_expected_latency_ns": 1_000_000.0,  # pre-generates enough for any machine
            "min_duration_ms": 10_000,
            "min_query_count": 64,  # the fewest from which early stopping judges a 90th percentile
            **_WHOLE,
        },
        Scenario.Server: {
            "server_target_qps": 40.0,
            "server_target_latency_ns": 1_000_000_000,  # the benchmark's own limit
            "min_duration_ms": 18_000,
            "min_query_count": 720,  # early stopping wants 662 at the 99th percentile, more if one is late
            **_WHOLE,
        },
        Scenario.Offline: {
            "offline_expected_qps": 5_000.0,  # 2,750 samples: enough for a machine four times as fast as 2 cores
            "min_duration_ms": 500,
            "min_query_count": 1,
            **_WHOLE,
        },
    },
)

SYNTHETIC = Profile(
    summary="the full-size model with random weights, on as much synthesised speech as dev-clean has",
    prepare="bench_rnnt.standins.synthetic:prepare",
    weights="bench_rnnt.standins.synthetic:write_weights",
    reference={"accuracy": 0.0},  # nothing was learnt, so no score is expected
    settings={Scenario.SingleStream: {"single_stream_expected_latency_ns": 5_000_000.0}},
    samples=2_513,
    memory_gb="bench_rnnt.config:memory_gb",
    gflop=GFLOP,
    disk_gb=0.6,
)

FULL = Profile(
    summary="the official model and LibriSpeech dev-clean from the official files",
    prepare="bench_rnnt.assets:prepare",
    is_official=True,
    samples=2_513,
    memory_gb="bench_rnnt.config:memory_gb",
    gflop=GFLOP,
    assets="bench_rnnt.assets:ASSETS",
)

BENCHMARK = Benchmark(
    name="rnnt",
    title="RNN-T speech recognition",
    model="rnnt",
    scenarios=(Scenario.SingleStream, Scenario.Server, Scenario.Offline),
    dataset="bench_rnnt.dataset:Dataset",
    backends={
        "pytorch": BackendSpec(
            name="bench_rnnt.pytorch.backend:Backend",
            extra="pytorch",
            dtypes=("float32", "bfloat16", "float16"),
            devices=("cpu", "cuda"),
            batch=32,
            baseline="bench_rnnt.pytorch.backend:sequential",
            file=CHECKPOINT,
        ),
    },
    postprocess="bench_rnnt.postprocess",
    accuracy="bench_rnnt.accuracy",
    profiles={"mini": MINI, "synthetic": SYNTHETIC, "full": FULL},
    train="bench_rnnt.standins.train:main",
    train_extra="pytorch",
)
