"""The system around a `TokenBackend`: order, first tokens, counts, and what it costs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import I64, Answers, Measures, Tokens
from loadgen.harness.serving import StreamingSystem
from loadgen.harness.serving.bucketing import Batching
from loadgen.harness.serving.gaps import Gaps


class Data:
    name, total_count, performance_count = "prompts", 100_000, 100_000

    def load(self, indices: Sequence[int]) -> None: ...

    def unload(self, indices: Sequence[int]) -> None: ...

    def gather(self, indices: I64) -> I64:
        return indices

    def costs(self, indices: I64) -> I64:
        return indices + 1


class Engine:
    """Gives each request its index as a token, `length` times; a batch of `slots`."""

    def __init__(self, slots: int, length: int) -> None:
        self.slots, self.length = slots, length
        self.running = self.indices = self.left = np.empty(0, np.int64)
        self.order: list[int] = []
        self.steps = 0

    def load(self) -> Any: ...

    def room(self) -> int:
        return self.slots - len(self.running)

    def add(self, requests: I64, batch: I64) -> None:
        self.order += batch.tolist()
        self.running = np.concatenate([self.running, requests])
        self.indices = np.concatenate([self.indices, batch])
        self.left = np.concatenate([self.left, np.full(len(requests), self.length)])

    def step(self, timeout_s: float) -> Tokens:
        self.steps += 1
        self.left = self.left - 1
        finished = self.left == 0
        tokens = Tokens(self.running, self.indices, np.arange(len(self.running) + 1), finished)
        self.running, self.indices, self.left = (x[~finished] for x in (self.running, self.indices, self.left))
        return tokens

    def close(self) -> None: ...


class Heard:
    """A `Responder` that notes what it hears."""

    keep = None

    def __init__(self) -> None:
        self.first: dict[int, int] = {}
        self.answers: dict[int, tuple[list[int], int]] = {}
        self.failed: list[str] = []

    def fail(self, message: str, details: str = "") -> None:
        self.failed.append(message)

    def first_token(self, ids: Any, data: Any, offsets: Any, at_ns: Any = None) -> None:
        for row, number in enumerate(np.atleast_1d(ids).tolist()):
            assert number not in self.answers
            self.first[number] = int(data[offsets[row] // 8])

    def complete(self, ids: Any, data: Any, offsets: Any, n_tokens: Any) -> None:
        for row, number in enumerate(np.atleast_1d(ids).tolist()):
            self.answers[number] = (data[offsets[row] // 8 : offsets[row + 1] // 8].tolist(), int(n_tokens[row]))


def encode(outputs: Sequence[I64], indices: I64, dataset: Any) -> Answers:
    lengths = np.array([len(ids) for ids in outputs], np.int64)
    return Answers(np.concatenate(outputs), np.concatenate([[0], np.cumsum(lengths)]) * 8, lengths)


def served(engine: Engine, heard: Heard, ids: Any, indices: Any) -> StreamingSystem[I64]:
    """All samples of one query, until they are answered."""
    system: StreamingSystem[I64] = StreamingSystem("s", [engine], Data(), encode, Batching(1))
    system.start(heard)  # type: ignore[arg-type]
    system.warm_up(np.atleast_1d(indices).tolist())
    system.issue(ids, indices)
    until = time.monotonic() + 60
    while len(heard.answers) < len(np.atleast_1d(ids)) and not heard.failed and time.monotonic() < until:
        time.sleep(0.001)
    system.stop()
    return system


@pytest.mark.parametrize("kind", ["one", "sequence", "array"])
def test_first_tokens_and_answers(kind: str) -> None:
    heard = Heard()
    ids: Any = {"one": 0, "sequence": [0, 1, 2], "array": np.arange(3)}[kind]
    indices: Any = {"one": 40, "sequence": [40, 41, 42], "array": np.array([40, 41, 42])}[kind]
    engine = Engine(2, 3)
    system = served(engine, heard, ids, indices)
    expected = dict(zip(np.atleast_1d(ids).tolist(), np.atleast_1d(indices).tolist(), strict=True))
    assert heard.first == expected
    assert heard.answers == {number: ([index] * 3, 3) for number, index in expected.items()}
    assert engine.order == (sorted(expected.values(), reverse=True) if kind == "array" else sorted(expected.values()))
    assert isinstance(system, Measures)
    measured = system.measured()
    assert 0 < measured["between_tokens_min_ns"] <= measured["between_tokens_99.00_percentile_ns"]


def again(t: Tokens) -> Tokens:
    twice = [np.concatenate([column, column]) for column in (t.requests, t.ids)]
    return Tokens(*twice, np.arange(2 * len(t.ids) + 1), np.ones(2 * len(t.ids), np.bool_))


WRONG: dict[str, tuple[Callable[[Tokens], Tokens], str]] = {
    "unknown": (lambda t: t._replace(requests=t.requests + 90), "told of request 9[01], which does not run"),
    "finished twice": (again, "told of request [01], which does not run.* twice at once"),
    "offsets": (lambda t: t._replace(offsets=t.offsets[:-1]), "gave 2 requests, .* 3 offsets up to 2"),
    "too few ids": (lambda t: t._replace(ids=t.ids[:-1]), "and 1 ids, with offsets"),
    "lists": (lambda t: t._replace(ids=t.ids.tolist()), "gave int64, list, int64, bool, expected arrays"),
    "logits": (lambda t: t._replace(ids=t.ids + 0.5), "gave int64, float64, int64, bool, expected arrays"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_step_that_cannot_be_is_told_in_words(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, message = WRONG[what]
    engine, heard = Engine(2, 3), Heard()
    right = engine.step
    monkeypatch.setattr(engine, "step", lambda timeout_s: wrong(right(timeout_s)))
    served(engine, heard, np.arange(2), np.arange(2))
    assert len(heard.failed) == 1
    assert re.search(message, heard.failed[0])


def test_256_running_requests_cost_less_than_a_millisecond_a_step() -> None:
    """Processor time of the one thread that steps, the fake engine's own included."""
    heard, engine = Heard(), Engine(256, 100)
    began = time.process_time()
    served(engine, heard, np.arange(1024), np.arange(1024))
    took = (time.process_time() - began) / engine.steps
    assert len(heard.answers) == 1024
    assert engine.steps == 400
    assert took < 1e-3, f"{1e3 * took:.2f} ms a step"


def test_gaps_are_kept_to_a_hundredth() -> None:
    gaps, rng = Gaps(), np.random.default_rng(0)
    times = 10**9 + np.cumsum(rng.integers(1_000_000, 9_000_000, 5000))
    for at in times.tolist():
        gaps.add(np.array([3, 2000]), at)
    true, found = np.diff(times), gaps.measured()
    assert found["between_tokens_mean_ns"] == pytest.approx(true.mean(), rel=1e-9)
    assert found["between_tokens_99.00_percentile_ns"] == pytest.approx(np.percentile(true, 99), rel=0.02)
    assert found["between_tokens_max_ns"] == pytest.approx(true.max(), rel=0.01)
    assert Gaps().measured() == {}
