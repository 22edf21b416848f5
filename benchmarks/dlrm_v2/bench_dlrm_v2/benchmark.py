"""DLRM-DCNv2 on multi-hot Criteo, all in one literal. Targets and limits are the rules' (`loadgen.rules`).

nox -s dlrm_v2                                        the miniature: a minute on 2 cores, AUC 82.2
nox -s dlrm_v2 -- run --profile capped                full size but for rows: half an hour, no score
nox -s dlrm_v2 -- run --profile synthetic --device cuda --dtype bfloat16 --batch 800 --max-cost 100000
                                                      104.5 GB of tables from a hash: as long, no score
nox -s dlrm_v2 -- run --profile full --data FOLDER    official files: AUC 80.31 in FP32
"""

from __future__ import annotations

from dataclasses import replace

from bench_dlrm_v2.official import METADATA, SAMPLE, SNAPSHOT
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.settings import Scenario

_WHOLE = {"performance_sample_count_override": 0}  # the rules' 204,800 are more than these profiles have

GFLOP = 8.66  # of a sample of 270 pairs: bottom 0.34e6, crosses 21.2e6, top 10.5e6 operations a pair

MINI = Profile(
    summary="a DLRM-DCNv2 with tables of up to 200 rows on generated clicks, embedded",
    prepare="bench_dlrm_v2.standins.miniature:prepare",
    samples=156,
    memory_gb=0.6,
    disk_gb=0.028,
    reference={"AUC": 82.2391},  # FP32, of the committed weights; measured by tests/test_miniature.py
    settings={
        Scenario.Server: {
            "server_target_qps": 40.0,
            "server_target_latency_ns": 400_000_000,  # the rules' 60 ms are for a machine that does nothing else
            "min_duration_ms": 15_000,
            "min_query_count": 700,  # early stopping wants 662 at the 99th percentile if one is late
            **_WHOLE,
        },
        Scenario.Offline: {
            "offline_expected_qps": 10_000.0,  # 5,500 samples: 3 s, on a busy machine 20
            "min_duration_ms": 500,
            "min_query_count": 1,
            **_WHOLE,
        },
    },
)

SYNTHETIC = Profile(
    summary="full size: random weights, 2,045 samples, some items far more popular than others",
    prepare="bench_dlrm_v2.standins.synthetic:prepare",
    dataset_options={"suffix": SAMPLE},
    model_options={"tables": "bench_dlrm_v2.standins.synthetic:make_rows"},
    reference={"AUC": 0.0},  # nothing was learnt, so no score is expected
    samples=2_045,
    settings=dict.fromkeys((Scenario.Server, Scenario.Offline), _WHOLE),
    memory_gb="bench_dlrm_v2.needs:memory_gb",
    gflop=GFLOP,
    disk_gb=0.6,
)

UNIFORM = replace(
    SYNTHETIC,
    summary="as synthetic, but all items are as popular: no cache helps",
    prepare="bench_dlrm_v2.standins.synthetic:prepare_uniform",
)

CAPPED = replace(
    SYNTHETIC,
    summary="as synthetic, but tables have up to 300,000 rows: 1.3 GB, for a machine without 104.5 GB",
    prepare="bench_dlrm_v2.standins.synthetic:prepare_capped",
    settings={Scenario.Server: _WHOLE, Scenario.Offline: {"min_query_count": 1, **_WHOLE}},  # not 24,576 samples
    memory_gb="bench_dlrm_v2.needs:capped",
)

FULL = Profile(
    summary="DLRM-DCNv2 and Criteo's day 23 from the official files",
    prepare="bench_dlrm_v2.assets:prepare",
    is_official=True,
    samples=330_067,
    memory_gb="bench_dlrm_v2.needs:official",
    gflop=GFLOP,
    assets="bench_dlrm_v2.assets:ASSETS",
)

BENCHMARK = Benchmark(
    name="dlrm_v2",
    title="DLRM-DCNv2 recommendation",
    model="dlrm-v2",
    scenarios=(Scenario.Server, Scenario.Offline),
    dataset="bench_dlrm_v2.dataset:Dataset",
    backends={
        "pytorch": BackendSpec(
            name="bench_dlrm_v2.pytorch.backend:Backend",
            extra="pytorch",
            dtypes=("float32", "bfloat16", "float16", "int8"),
            devices=("cpu", "cuda"),
            cost_rule="packed",
            spreads=True,
            file=f"{SNAPSHOT}/{METADATA}",
        ),
    },
    postprocess="bench_dlrm_v2.postprocess",
    accuracy="bench_dlrm_v2.accuracy",
    profiles={"mini": MINI, "synthetic": SYNTHETIC, "uniform": UNIFORM, "capped": CAPPED, "full": FULL},
    train="bench_dlrm_v2.standins.train:main",
    train_extra="pytorch",
)
