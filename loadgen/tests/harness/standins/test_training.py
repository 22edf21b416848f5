"""The frame of `train-mini`, with a training that learns nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from loadgen.contracts import InputError
from loadgen.harness.standins.training import Progress, find_device, train_and_write, words

COMMITTED = Path("standins/weights.npz")


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands in PyTorch's place: loadgen's own tests have none."""
    gpu = SimpleNamespace(is_available=lambda: False, get_device_name=lambda: "a GPU")
    fake = SimpleNamespace(cuda=gpu, __version__="2")
    monkeypatch.setitem(sys.modules, "torch", fake)  # type: ignore[arg-type]
    return fake


def train(args: argparse.Namespace) -> dict[str, Any]:
    return {"seed": np.array(args.seed), "steps": np.array(args.steps)}


def test_it_writes_what_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "w.npz"
    train_and_write(words("d", seed=2, steps=9), ["--output", str(output), "--steps", "4"], train, COMMITTED)
    with np.load(output) as made:
        assert {name: int(made[name]) for name in made} == {"seed": 2, "steps": 4}
    assert [file.name for file in tmp_path.iterdir()] == ["w.npz"]
    said = capsys.readouterr().out.splitlines()
    assert said == ["training on cpu", f"written: {output}; {COMMITTED} is the file that the miniature uses"]


def test_a_gpu_is_taken_if_there_is_one(torch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    torch.cuda.is_available = lambda: True
    assert (find_device(None), find_device("cpu")) == ("cuda", "cpu")
    assert capsys.readouterr().out.splitlines() == ["training on a GPU", "training on cpu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda"], "--device cuda: PyTorch 2 sees no GPU; use --device cpu"),
        (["--output", "/nowhere/w.npz"], "--output /nowhere/w.npz: no such folder"),
    ],
)
def test_what_is_not_there_is_said_before_the_training(arguments: list[str], message: str) -> None:
    def never(args: argparse.Namespace) -> dict[str, Any]:
        raise AssertionError("trained")

    with pytest.raises(InputError, match=message):
        train_and_write(words(None, seed=1, steps=1), arguments, never, COMMITTED)


def test_progress_is_said_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    time = 0.0
    progress = Progress(50, clock=lambda: time)
    for _ in range(50):
        time += 0.5
        progress.step(np.float32(2))
    assert capsys.readouterr().out.splitlines() == [
        "step 1 of 50: loss 2.000, 2 steps/s, 0 s, 24 s to go",
        "step 21 of 50: loss 2.000, 2 steps/s, 10 s, 14 s to go",
        "step 41 of 50: loss 2.000, 2 steps/s, 20 s, 4 s to go",
        "step 50 of 50: loss 2.000, 2 steps/s, 25 s, 0 s to go",
    ]
