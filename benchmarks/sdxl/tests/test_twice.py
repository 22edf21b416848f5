"""What looks for the first kernel that does not give the same bytes twice: `speed/twice.py`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

FILE = Path(__file__).parents[1] / "speed" / "twice.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("twice", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_that_differs_is_named() -> None:
    twice, times = script(), iter(range(9))
    ours = SimpleNamespace(kernel=lambda x: x + next(times) // 2)

    def compute() -> None:
        ours.kernel(torch.ones(3, 4).mul(2)).sum()

    runs = [twice.noted(compute, [(ours, "kernel")]) for _ in range(3)]
    assert [name.split(" ")[0] for name, _ in runs[0]] == [
        *("aten.ones.default", "aten.mul.Tensor", "aten.add.Tensor", "kernel", "aten.sum.default")
    ]
    assert twice.first_difference(runs[0], runs[1]) == ""
    assert twice.first_difference(runs[0], runs[2]).startswith("number 2 of 5, aten.add.Tensor [3, 4] torch.float32")
    assert twice.first_difference(runs[0], runs[0][:4]) == "5 results, the second time 4"


def test_an_exchange_and_a_last_bit_change_the_checksum() -> None:
    twice = script()
    x = torch.arange(12, dtype=torch.float32).view(3, 4)
    sums = [twice.checksum(value) for value in (x, x.flip(0), x.to(torch.bfloat16), torch.nextafter(x, x + 1), x.t())]
    assert len({int(one) for one in sums}) == 5
    assert twice.checksum(x.t()) == twice.checksum(x.t().contiguous())


def test_memory_that_nobody_wrote_is_no_result() -> None:
    twice = script()
    assert [name.split(" ")[0] for name, _ in twice.noted(lambda: torch.empty(4).fill_(1))] == ["aten.fill_.Scalar"]
