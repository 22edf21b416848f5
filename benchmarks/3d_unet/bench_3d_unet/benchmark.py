"""3D U-Net on KiTS19, all in one literal. Targets and limits are the rules' (`loadgen.rules`).

nox -s 3d_unet                                        the miniature: a minute on 2 cores, mean Dice 0.925
nox -s 3d_unet -- run --profile synthetic --device cuda --backend pytorch --dtype bfloat16
                                                      random weights: twenty minutes, no score
nox -s 3d_unet -- run --profile full --data FOLDER ...   official files: as long, mean Dice 0.8617 in FP32
"""

from __future__ import annotations

from bench_3d_unet.official import CHECKPOINT, ONNX, SAVED_MODEL
from bench_3d_unet.standins import CASES
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.settings import Scenario

GFLOP = 61_294.0  # 954.6 a window by its convolutions, 2,761 windows of 43 volumes
MEMORY_GB = 9.5  # on a CPU: 5.7 of volumes, 2.5 of the network, 1.1 for the sums of the largest volume

MINI = Profile(
    summary="a 3D U-Net of 4 levels on generated phantoms, embedded",
    prepare="bench_3d_unet.standins.miniature:prepare",
    weights="bench_3d_unet.standins.miniature:write_weights",
    dataset_options={"cases": CASES},
    samples=len(CASES),
    memory_gb=0.5,
    disk_gb=0.03,
    reference={"mean": 0.9251},  # FP32, of the committed weights; measured by tests/test_miniature.py
    settings={
        Scenario.SingleStream: {
            "single_stream_expected_latency_ns": 50_000_000.0,
            "min_duration_ms": 500,
            "min_query_count": 48,  # equal issue adds 16: 64, the fewest from which early stopping judges the 90th
        },
        Scenario.Offline: {
            "offline_expected_qps": 25.0,
            "min_duration_ms": 0,
            "min_query_count": 48,  # 16 volumes three times
        },
    },
)

SYNTHETIC = Profile(
    summary="the full 3D U-Net with random weights on generated phantoms of KiTS19's 43 sizes",
    prepare="bench_3d_unet.standins.synthetic:prepare",
    weights="bench_3d_unet.standins.synthetic:write_weights",
    reference={"mean": 0.0},  # nothing was learnt, so no score is expected
    settings={Scenario.SingleStream: {"single_stream_expected_latency_ns": 500_000_000.0}},
    samples=43,
    memory_gb=MEMORY_GB,
    gflop=GFLOP,
    disk_gb=7.3,  # the volumes, and one backend's weights
)

FULL = Profile(
    summary="3D U-Net and KiTS19 from the official files",
    prepare="bench_3d_unet.assets:prepare",
    is_official=True,
    samples=43,
    memory_gb=MEMORY_GB,
    gflop=GFLOP,
    disk_gb=12.0,  # 7.1 of preprocessed volumes, and compressed copies of them
    assets="bench_3d_unet.assets:ASSETS",
)

BENCHMARK = Benchmark(
    name="3d_unet",
    title="3D U-Net kidney tumour segmentation",
    model="3d-unet",
    scenarios=(Scenario.SingleStream, Scenario.Offline),
    dataset="bench_3d_unet.dataset:Dataset",
    backends={
        "onnxruntime": BackendSpec(
            name="bench_3d_unet.backend_onnxruntime:Backend",
            extra="onnxruntime",
            devices=("cpu", "cuda"),
            batch=4,
            cost_rule="packed",  # windows of a batch's volumes follow each other
            file=ONNX,
        ),
        "pytorch": BackendSpec(
            name="bench_3d_unet.pytorch.backend:Backend",
            extra="pytorch",
            dtypes=("float32", "bfloat16", "float16"),
            devices=("cpu", "cuda"),
            batch=4,
            cost_rule="packed",
            baseline="bench_3d_unet.pytorch.backend:one_by_one",
            file=CHECKPOINT,
        ),
        "tensorflow": BackendSpec(
            name="bench_3d_unet.backend_tensorflow:Backend",
            extra="tensorflow",
            devices=("cpu", "cuda"),
            batch=4,
            cost_rule="packed",
            file=SAVED_MODEL,
        ),
    },
    postprocess="bench_3d_unet.postprocess",
    accuracy="bench_3d_unet.accuracy",
    profiles={"mini": MINI, "synthetic": SYNTHETIC, "full": FULL},
    train="bench_3d_unet.standins.train:main",
    train_extra="pytorch",
)
