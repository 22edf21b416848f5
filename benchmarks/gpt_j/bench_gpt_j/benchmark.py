"""GPT-J 6B on CNN/DailyMail, all in one literal. Targets and limits are the rules' (`loadgen.rules`).

nox -s gpt_j                                          the miniature: about a minute on 2 cores, ROUGE-1 70.3
nox -s gpt_j -- run --profile synthetic --device cuda --dtype bfloat16 --batch 96
                                                      6 B random weights on one GPU of 80 GB or more: no score
nox -s gpt_j -- run --profile full --data FOLDER --device cuda --dtype bfloat16 --batch 96
                                                      official files: ROUGE-1 43.0
"""

from __future__ import annotations

from bench_gpt_j.official import INDEX
from bench_gpt_j.standins import COUNT, LONGEST, MAX_NEW, MIN_NEW
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.settings import Scenario

_WHOLE = {"performance_sample_count_override": 0}
GFLOP = 15_100.0  # 2 * 6.05e9 * (950 + 4 * 69) tokens, and attention

MINI = Profile(
    summary="a GPT-J of 2 layers on generated news, embedded",
    prepare="bench_gpt_j.standins.miniature:prepare",
    weights="bench_gpt_j.standins.miniature:write_weights",
    dataset_options={"longest": LONGEST, "max_new_tokens": MAX_NEW},
    model_options={
        "threads": 1,  # unless --threads says more: a net so small is slower on two cores than on one
        "longest": LONGEST,
        "min_new_tokens": MIN_NEW,
        "max_new_tokens": MAX_NEW,
    },
    samples=COUNT,
    memory_gb=0.6,
    disk_gb=0.002,
    reference={  # FP32, of the committed weights, beam_length generated; measured by tests/test_miniature.py
        "rouge1": 70.3485,
        "rouge2": 60.1435,
        "rougeL": 67.8658,
        "gen_len": 32323,
    },
    settings={
        Scenario.SingleStream: {
            "single_stream_expected_latency_ns": 20_000_000.0,  # pre-generates enough for any machine
            "min_duration_ms": 5_000,
            "min_query_count": 64,  # the fewest from which early stopping judges a 90th percentile
            **_WHOLE,
        },
        Scenario.Server: {
            "server_target_qps": 60.0,  # every answer within the benchmark's own 20 s
            "min_duration_ms": 11_000,
            "min_query_count": 680,  # early stopping wants 662 at the 99th percentile, more if one is late
            **_WHOLE,
        },
        Scenario.Offline: {
            "offline_expected_qps": 1_800.0,  # 1,980 samples
            "min_duration_ms": 1_000,
            "min_query_count": 1,
            **_WHOLE,
        },
    },
)

SYNTHETIC = Profile(
    summary="GPT-J 6B with random weights on generated articles, as many and as long as CNN/DailyMail's",
    prepare="bench_gpt_j.standins.synthetic:prepare",
    dataset_options={"as_long": True},
    model_options={"seed": 1},
    samples=13_368,
    memory_gb="bench_gpt_j.memory:of_6b",
    gflop=GFLOP,
    disk_gb=0.1,
    reference={"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0, "gen_len": 0.0},  # nothing is learnt
    settings={Scenario.SingleStream: {"single_stream_expected_latency_ns": 2e9}},
)

FULL = Profile(
    summary="GPT-J 6B, fine-tuned, and CNN/DailyMail from the official files",
    prepare="bench_gpt_j.assets:prepare",
    is_official=True,
    samples=13_368,
    memory_gb="bench_gpt_j.memory:of_6b",
    gflop=GFLOP,
    assets="bench_gpt_j.assets:ASSETS",
)

BENCHMARK = Benchmark(
    name="gpt_j",
    title="GPT-J 6B summarisation",
    model="gptj",
    scenarios=(Scenario.SingleStream, Scenario.Server, Scenario.Offline),
    dataset="bench_gpt_j.dataset:Dataset",
    backends={
        "pytorch": BackendSpec(
            name="bench_gpt_j.pytorch.backend:Backend",
            extra="pytorch",
            dtypes=("float32", "bfloat16", "float16"),
            devices=("cpu", "cuda"),
            batch=32,
            cost_rule="packed",
            file=INDEX,
        ),
    },
    postprocess="bench_gpt_j.postprocess",
    accuracy="bench_gpt_j.accuracy",
    profiles={"mini": MINI, "synthetic": SYNTHETIC, "full": FULL},
    system="loadgen.harness.serving:StreamingSystem",
    train="bench_gpt_j.standins.train:main",
    train_extra="pytorch",
)
