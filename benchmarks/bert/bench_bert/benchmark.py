"""BERT-large on SQuAD v1.1, all in one literal. Targets and limits are the rules' (`loadgen.rules`).

nox -s bert                                           the miniature: a minute on 2 cores, F1 92.1
nox -s bert -- run --profile synthetic --device cuda --backend pytorch --dtype bfloat16 --batch 128
                                                      random weights: half an hour, no score
nox -s bert -- run --profile full --data FOLDER ...   official files: as long, F1 90.9 in FP32
"""

from __future__ import annotations

from bench_bert.official import ONNX, PYTORCH, TENSORFLOW
from bench_bert.standins import SIZES
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.settings import Scenario

_WHOLE = {"performance_sample_count_override": 0}  # the rules' 10,833 is the size of SQuAD's dev set

GFLOP = 110.7  # of S tokens 24 layers of 25.2e6 S + 4,096 S^2; over the windows of the synthetic profile

MINI = Profile(
    summary="a BERT of 2 layers on generated questions, embedded",
    prepare="bench_bert.standins.miniature:prepare",
    weights="bench_bert.standins.miniature:write_weights",
    dataset_options=SIZES,
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
    prepare="bench_bert.standins.synthetic:prepare",
    weights="bench_bert.standins.synthetic:write_weights",
    reference={"f1": 0.0},  # nothing was learnt, so no score is expected
    settings={Scenario.SingleStream: {"single_stream_expected_latency_ns": 500_000.0}},  # an H200 takes 1.3 ms
    samples=10_833,
    memory_gb=5.5,  # ONNX Runtime, the hungriest while it loads; measured
    gflop=GFLOP,
    disk_gb=1.4,  # one backend's weights, and the questions
)

FULL = Profile(
    summary="BERT-large and SQuAD v1.1 from the official files",
    prepare="bench_bert.assets:prepare",
    is_official=True,
    samples=10_833,
    memory_gb=5.5,
    gflop=GFLOP,
    assets="bench_bert.assets:ASSETS",
)

BENCHMARK = Benchmark(
    name="bert",
    title="BERT-large question answering",
    model="bert",
    scenarios=(Scenario.SingleStream, Scenario.Server, Scenario.Offline),
    dataset="bench_bert.dataset:Dataset",
    backends={
        "onnxruntime": BackendSpec(
            name="bench_bert.backend_onnxruntime:Backend",
            extra="onnxruntime",
            dtypes=("float32", "int8"),
            devices=("cpu", "cuda"),
            file=ONNX,
        ),
        "pytorch": BackendSpec(
            name="bench_bert.backend_pytorch:Backend",
            extra="pytorch",
            dtypes=("float32", "bfloat16", "float16"),
            devices=("cpu", "cuda"),
            cost_rule="packed",  # it takes the padding out
            baseline="bench_bert.backend_pytorch:padded",
            file=PYTORCH,
        ),
        "tensorflow": BackendSpec(
            name="bench_bert.backend_tensorflow:Backend",
            extra="tensorflow",
            devices=("cpu", "cuda"),
            file=TENSORFLOW,
        ),
    },
    postprocess="bench_bert.postprocess",
    accuracy="bench_bert.accuracy",
    scoring=("dtype", "transposed", "partial", "max_examples"),
    profiles={"mini": MINI, "synthetic": SYNTHETIC, "full": FULL},
    train="bench_bert.standins.train:main",
    train_extra="pytorch",
)
