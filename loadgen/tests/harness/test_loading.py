"""What a person sees while samples are loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from loadgen.harness import loading
from loadgen.harness.loading import Spoken, held


class Slow:
    name, total_count, performance_count = "numbers", 50, 20

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.loaded: list[int] = []

    def load(self, indices: Sequence[int]) -> None:
        time.sleep(self.seconds)
        self.loaded += indices

    def unload(self, indices: Sequence[int]) -> None:
        self.loaded.clear()


def test_a_slow_load_says_how_long_it_has_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_SAID_EACH_S", 0.02)
    said: list[str] = []
    slow = Slow(0.3)
    library = Spoken(slow, said.append)
    library.load(range(1_234))
    assert len(slow.loaded) == 1_234
    assert said[0] == "loading 1,234 samples, for 0 s now"
    count = len(said)
    assert count > 1
    time.sleep(0.1)
    assert len(said) == count, "nothing is said any more when the clock runs"
    assert not [thread for thread in threading.enumerate() if thread.name == "loadgen-loading"]
    library.unload(range(1_234))
    assert not slow.loaded
    assert (library.name, library.total_count, library.performance_count) == ("numbers", 50, 20)


def test_a_quick_load_says_nothing() -> None:
    said: list[str] = []
    Spoken(Slow(0), said.append).load([1])
    assert not said


def test_held_samples_are_loaded_again_only_if_others_are_wanted() -> None:
    slow = Slow(0)
    with held(slow) as library:
        assert (library.name, library.total_count, library.performance_count) == ("numbers", 50, 20)
        for wanted in ([1, 2], [1, 2], [2, 3]):
            library.load(wanted)
            library.unload(wanted)
            assert slow.loaded == wanted
    assert not slow.loaded
