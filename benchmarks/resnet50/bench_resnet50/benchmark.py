"""ResNet-50 v1.5 on ImageNet, all in one literal. Targets and limits are the rules' (`loadgen.rules`).

nox -s resnet50                                               the miniature: a minute on 2 cores, 91.65 %
nox -s resnet50 -- run --profile synthetic --device cuda --backend pytorch --dtype bfloat16 --batch 256
                                                              random weights: 45 minutes, no score
nox -s resnet50 -- run --profile full --data FOLDER ...       official files: as long, 76.46 % in FP32 by the rules
nox -s resnet50 -- run --profile torchvision --backend pytorch --data FOLDER ...      likewise, 76.13 % by torchvision
"""

from __future__ import annotations

from bench_resnet50.official import NCNN, ONNX, PYTORCH, TENSORFLOW
from bench_resnet50.standins import SIZES
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.settings import Scenario

_GFLOP = 8.18  # 4.09 G multiplications of ResNet-50 v1.5's convolutions and last layer, and as many additions
_WHOLE = {"performance_sample_count_override": 0}  # the rules' 1,024 is about half of the miniature's images

MINI = Profile(
    summary="a ResNet of 5 blocks on drawn images, embedded",
    prepare="bench_resnet50.standins.miniature:prepare",
    weights="bench_resnet50.standins.miniature:write_weights",
    dataset_options=SIZES,
    model_options={"threads": 1},  # unless --threads says more: a net so small is slower on two cores than on one
    reference={"accuracy": 91.65},  # FP32, of the committed weights; measured by tests/test_miniature.py
    samples=2_000,
    disk_gb=0.05,
    settings={
        Scenario.SingleStream: {
            "single_stream_expected_latency_ns": 100_000.0,  # pre-generates enough for any machine
            "min_duration_ms": 7_000,
            "min_query_count": 64,  # the fewest from which early stopping judges a 90th percentile
            **_WHOLE,
        },
        Scenario.MultiStream: {
            "multi_stream_expected_latency_ns": 100_000.0,
            "min_duration_ms": 7_000,
            "min_query_count": 662,  # the rules' own: the fewest that early stopping judges at the 99th percentile
            **_WHOLE,
        },
        Scenario.Server: {
            "server_target_qps": 150.0,
            "server_target_latency_ns": 60_000_000,  # four times the benchmark's: others may use the same cores
            "min_duration_ms": 10_000,
            "min_query_count": 800,  # early stopping wants 662 at the 99th percentile, more if one is late
            **_WHOLE,
        },
        Scenario.Offline: {
            "offline_expected_qps": 30_000.0,  # 16,500 samples: 2 slow cores take 4 s
            "min_duration_ms": 500,
            "min_query_count": 1,
            **_WHOLE,
        },
    },
)

SYNTHETIC = Profile(
    summary="ResNet-50 with random weights on generated JPEG files of ImageNet's size",
    prepare="bench_resnet50.standins.synthetic:prepare",
    weights="bench_resnet50.standins.synthetic:write_weights",
    reference={"accuracy": 0.0},  # nothing was learnt, so no score is expected
    samples=2_000,
    gflop=_GFLOP,
    disk_gb=0.7,  # one backend's weights 0.1, JPEG files 0.3, prepared images 0.3
)

FULL = Profile(
    summary="ResNet-50 and ImageNet-2012 from the official files, for TensorFlow, ONNX Runtime and TVM",
    prepare="bench_resnet50.assets:prepare_full",
    dataset_options={"variant": "tf"},
    model_options={"variant": "tf"},
    is_official=True,
    assets="bench_resnet50.assets:FULL",
    samples=50_000,
    gflop=_GFLOP,
    disk_gb=14.3,  # the unpacked images 6.7, the prepared ones 50,000 x 150,592 bytes
)

TORCHVISION = Profile(
    summary="the same with torchvision's weights and preprocessing, for PyTorch and ncnn",
    prepare="bench_resnet50.assets:prepare_torchvision",
    dataset_options={"variant": "torch"},
    model_options={"variant": "torch"},
    is_official=True,
    assets="bench_resnet50.assets:TORCHVISION",
    samples=50_000,
    gflop=_GFLOP,
    disk_gb=14.3,
)

BENCHMARK = Benchmark(
    name="resnet50",
    title="ResNet-50 image classification",
    model="resnet50",
    scenarios=(Scenario.SingleStream, Scenario.MultiStream, Scenario.Server, Scenario.Offline),
    dataset="bench_resnet50.dataset:Dataset",
    backends={
        "onnxruntime": BackendSpec(
            name="bench_resnet50.backend_onnxruntime:Backend",
            extra="onnxruntime",
            devices=("cpu", "cuda"),
            file=ONNX,
        ),
        "pytorch": BackendSpec(
            name="bench_resnet50.pytorch.backend:Backend",
            extra="pytorch",
            dtypes=("float32", "bfloat16", "float16"),
            devices=("cpu", "cuda"),
            file=PYTORCH,
        ),
        "tensorflow": BackendSpec(
            name="bench_resnet50.backend_tensorflow:Backend",
            extra="tensorflow",
            devices=("cpu", "cuda"),
            file=TENSORFLOW,
        ),
        "ncnn": BackendSpec(name="bench_resnet50.backend_ncnn:Backend", extra="ncnn", file=NCNN),
        "tvm": BackendSpec(name="bench_resnet50.tvm.backend:Backend", extra="tvm", file=ONNX),
    },
    postprocess="bench_resnet50.postprocess",
    accuracy="bench_resnet50.accuracy",
    profiles={"mini": MINI, "synthetic": SYNTHETIC, "full": FULL, "torchvision": TORCHVISION},
    train="bench_resnet50.standins.train:main",
    train_extra="pytorch",
)
