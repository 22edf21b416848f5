"""Generated tokens: a prompt is its sample's index, an answer counts up from it, 2 to 9 tokens long.

The engine runs at most four requests at once, and each step brings a token of each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from loadgen.contracts import I64, Answers, BackendOptions, Entry, Loaded, RequestError, Scoring, Tokens
from loadgen.harness.benchmark import BackendSpec, Benchmark, Profile
from loadgen.harness.serving.streaming import tokens_of
from loadgen.settings import Scenario

COUNT, SLOTS = 40, 4


def answer(index: int) -> list[int]:
    """The tokens of a sample."""
    return list(range(1000 + index, 1000 + index + 2 + index % 8))


class Dataset:
    name, total_count, performance_count = "prompts", COUNT, COUNT

    def __init__(self, folder: Path) -> None:
        """A tokenizer would lie in `folder / "model"`."""

    def load(self, indices: Sequence[int]) -> None: ...

    def unload(self, indices: Sequence[int]) -> None: ...

    def gather(self, indices: I64) -> I64:
        return indices + 1000

    def costs(self, indices: I64) -> I64:
        return 2 + indices % 8


class Backend:
    """A `TokenBackend`. A prompt of `bad` fails."""

    bad = -1
    most = 0
    """Requests that ran at once, at the most."""

    def __init__(self, options: BackendOptions) -> None:
        self.options = options
        self._running: dict[int, list[int]] = {}

    def load(self) -> Loaded:
        return Loaded(self.options.device, self.options.dtype)

    def room(self) -> int:
        return SLOTS - len(self._running)

    def add(self, requests: I64, batch: I64) -> None:
        assert len(requests) <= self.room()
        for request, prompt in zip(requests.tolist(), batch.tolist(), strict=True):
            if prompt == self.bad:
                raise RequestError(request, "the prompt is empty")
            self._running[request] = answer(prompt - 1000)
        Backend.most = max(self.most, len(self._running))

    def step(self, timeout_s: float) -> Tokens:
        time.sleep(0.0002)
        rows = [(request, [left.pop(0)], not left) for request, left in self._running.items()]
        self._running = {request: left for request, left in self._running.items() if left}
        return tokens_of(rows)

    def close(self) -> None: ...


def encode(outputs: Sequence[I64], indices: I64, dataset: Dataset) -> Answers:
    """int64 ids, as many bytes as there are tokens."""
    lengths = np.array([len(ids) for ids in outputs], np.int64)
    return Answers(np.concatenate(outputs), np.concatenate([[0], np.cumsum(lengths)]) * 8, lengths)


def decode(data: bytes) -> I64:
    return np.frombuffer(data, np.int64)


def score(entries: Iterable[Entry], dataset: Dataset, at: Scoring) -> dict[str, float]:
    lengths, right = [], []
    for entry in entries:
        ids = decode(entry.data)
        right.append(ids.tolist() == answer(entry.index) and entry.n_tokens == len(ids))
        if entry.first_token:
            right.append(decode(entry.first_token).tolist() == ids[:1].tolist())
        lengths.append(len(ids))
    rouge = dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), 100 * float(np.mean(right)))
    total = sum(lengths)
    return {
        **rouge,
        **{"gen_len": total, "gen_num": len(lengths), "gen_tok_len": total, "tokens_per_sample": total / len(lengths)},
    }


def prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


WHOLE = {"performance_sample_count_override": 0, "min_duration_ms": 100}
BENCHMARK = Benchmark(
    name="tokens",
    title="Generated tokens",
    model="llama2-70b",
    scenarios=(Scenario.Server, Scenario.Offline),
    dataset="tokens:Dataset",
    backends={"numpy": BackendSpec("tokens:Backend")},
    postprocess="tokens",
    accuracy="tokens",
    system="loadgen.harness.serving:StreamingSystem",
    profiles={
        "mini": Profile(
            "prompts, embedded",
            "tokens:prepare",
            samples=COUNT,
            reference={"rouge1": 100.0, "rouge2": 100.0, "rougeL": 100.0, "tokens_per_sample": 5.5},
            settings={
                Scenario.Server: {"server_target_qps": 300.0, **WHOLE, "min_query_count": 800},
                Scenario.Offline: {"offline_expected_qps": 500.0, **WHOLE, "min_query_count": 500},
            },
        )
    },
)
