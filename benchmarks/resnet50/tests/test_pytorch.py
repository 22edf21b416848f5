"""PyTorch on a CPU: its two networks, number formats, and state dicts that do not fit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_resnet50.batch import Batch
from bench_resnet50.official import PYTORCH
from bench_resnet50.pytorch import cpu
from loadgen.contracts import InputError

Load = Callable[..., Any]
TOLERANCE = 2e-5
State = dict[str, torch.Tensor]


def logits(load: Load, folder: Path, batch: Batch, **options: Any) -> Any:
    return load("pytorch", folder, **options).submit(batch).result()


def test_without_onednn_the_cpu_computes_the_same(
    small_files: Path, small_batch: Batch, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = logits(load, small_files, small_batch)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(cpu, "Network", None)
    assert np.abs(logits(load, small_files, small_batch) - expected).max() < TOLERANCE


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_are_close(dtype: str, small_files: Path, small_batch: Batch, load: Load) -> None:
    narrow, exact = (logits(load, small_files, small_batch, dtype=name) for name in (dtype, "float32"))
    assert narrow.dtype == np.float32
    assert TOLERANCE < np.abs(narrow - exact).max() < 0.2


def test_counters_of_training_steps_are_passed_over(small: Path, small_batch: Batch, load: Load) -> None:
    expected = logits(load, small, small_batch)
    state = torch.load(small / PYTORCH, weights_only=True)
    state |= {f"{n.removesuffix('weight')}num_batches_tracked": torch.tensor(5) for n in state if "bn" in n}
    torch.save(state, small / PYTORCH)
    assert np.array_equal(logits(load, small, small_batch), expected)


def _drop(state: State) -> None:
    del state["layer2.0.bn2.running_var"]


def _reshape(state: State) -> None:
    state["fc.weight"] = torch.zeros(11, 64)


def _add(state: State) -> None:
    state["layer4.0.conv1.weight"] = torch.zeros(48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, r"'layer2.0.bn2.running_var' \[16\] is missing"),
        (_reshape, r"'fc.weight' has shape \[11, 64\], expected \[10, 64\]"),
        (_add, "'layer4.0.conv1.weight' is unknown"),
    ],
)
def test_weights_of_another_shape_are_named(
    change: Callable[[State], None], message: str, small: Path, load: Load
) -> None:
    state = torch.load(small / PYTORCH, weights_only=True)
    change(state)
    torch.save(state, small / PYTORCH)
    with pytest.raises(InputError, match=message) as caught:
        load("pytorch", small)
    assert str(small / PYTORCH) in str(caught.value)


@pytest.mark.parametrize("policy", ["", "ACTIVE"])
def test_openmp_threads_sleep_while_they_wait(policy: str) -> None:
    """Unless the user says otherwise. Asked of ncnn's library itself, which reads the environment on being loaded;
    PyTorch's does the same, but takes seconds to import."""
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    given = {"OMP_WAIT_POLICY": policy} if policy else {}
    done = subprocess.run(
        [sys.executable, "-c", "import bench_resnet50.backend_ncnn"],
        env={**clean, **given, "OMP_DISPLAY_ENV": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(re.findall("OMP_WAIT_POLICY = '(.*)'", done.stderr)) == {policy or "PASSIVE"}
