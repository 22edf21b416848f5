"""RetinaNet on OpenImages, all in one literal. Targets and limits are the rules' (`loadgen.rules`).

nox -s retinanet                                              the miniature: a minute on 2 cores, mAP 44.8
nox -s retinanet -- run --profile synthetic --device cuda --backend pytorch --dtype bfloat16 --batch 32
                                                              random weights: 45 minutes, no score
nox -s retinanet -- run --profile full --data FOLDER ...      official files: as long, mAP 37.55 in FP32 by the rules
"""

from __future__ import annotations

from bench_retinanet.official import ONNX, PYTORCH
from bench_retinanet.standins import SIZES
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.settings import Scenario

_GFLOP = 402.4  # 128.2 of the backbone and the pyramid, 274.2 of the heads, additions as well as multiplications
_WHOLE = {"performance_sample_count_override": 0}  # the rules' 64 is a fifth of the miniature's images

MINI = Profile(
    summary="a RetinaNet of 5 blocks on drawn shapes, embedded",
    prepare="bench_retinanet.standins.miniature:prepare",
    weights="bench_retinanet.standins.miniature:write_weights",
    dataset_options=SIZES,
    model_options={"threads": 1},  # unless --threads says more: threads that wait for each other spin
    reference={"mAP": 44.792},  # FP32, of the committed weights; measured by tests/test_miniature.py
    samples=300,
    disk_gb=0.07,
    settings={
        Scenario.SingleStream: {
            "single_stream_expected_latency_ns": 1_000_000.0,  # pre-generates enough for any machine
            "min_duration_ms": 7_000,
            "min_query_count": 64,  # the fewest from which early stopping judges a 90th percentile
            **_WHOLE,
        },
        Scenario.MultiStream: {
            "multi_stream_expected_latency_ns": 10_000_000.0,
            "min_duration_ms": 7_000,
            "min_query_count": 662,  # the rules' own: the fewest that early stopping judges at the 99th percentile
            **_WHOLE,
        },
        Scenario.Server: {
            "server_target_qps": 40.0,
            "server_target_latency_ns": 400_000_000,  # four times the benchmark's: others may use the same cores
            "min_duration_ms": 10_000,
            "min_query_count": 800,  # early stopping wants 662 at the 99th percentile, more if one is late
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
    summary="RetinaNet with random weights on generated JPEG files of OpenImages' size",
    prepare="bench_retinanet.standins.synthetic:prepare",
    weights="bench_retinanet.standins.synthetic:write_weights",
    reference={"mAP": 0.0},  # nothing was learnt, so no score is expected
    samples=256,
    memory_gb=4.2,  # 260 loaded images 2.0; PyTorch with 8 of them at once, the hungrier backend, 2.2; measured
    gflop=_GFLOP,
    disk_gb=0.9,  # one backend's weights 0.15, JPEG files 0.1, decoded images 0.6
)

FULL = Profile(
    summary="RetinaNet and OpenImages' validation set from the official files",
    prepare="bench_retinanet.assets:prepare",
    is_official=True,
    assets="bench_retinanet.assets:FULL",
    samples=24_781,
    memory_gb=4.2,
    gflop=_GFLOP,
    disk_gb=60.0,  # the decoded images, 24,781 of about 1024 x 768 x 3 bytes
)

BENCHMARK = Benchmark(
    name="retinanet",
    title="RetinaNet object detection",
    model="retinanet",
    scenarios=(Scenario.SingleStream, Scenario.MultiStream, Scenario.Server, Scenario.Offline),
    dataset="bench_retinanet.dataset:Dataset",
    backends={
        "onnxruntime": BackendSpec(
            name="bench_retinanet.backend_onnxruntime:Backend",
            extra="onnxruntime",
            devices=("cpu", "cuda"),
            file=ONNX,
        ),
        "pytorch": BackendSpec(
            name="bench_retinanet.pytorch.backend:Backend",
            extra="pytorch",
            dtypes=("float32", "bfloat16", "float16"),
            devices=("cpu", "cuda"),
            file=PYTORCH,
        ),
    },
    postprocess="bench_retinanet.postprocess",
    accuracy="bench_retinanet.accuracy",
    profiles={"mini": MINI, "synthetic": SYNTHETIC, "full": FULL},
    train="bench_retinanet.standins.train:main",
    train_extra="pytorch",
)
