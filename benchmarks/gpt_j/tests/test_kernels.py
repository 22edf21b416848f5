"""A GPU's kernels beside plain PyTorch. Without a GPU Triton interprets them."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("triton", reason="Triton is for Linux only")

from bench_gpt_j.config import GPTJConfig
from bench_gpt_j.pytorch import kernels
from bench_gpt_j.pytorch.engine import Engine, Search
from bench_gpt_j.pytorch.model import rotated, rotation
from bench_gpt_j.pytorch.weights import load, random

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPES = [torch.float32, torch.bfloat16 if ON_GPU else torch.float16]  # NumPy, which interprets, has no bfloat16
CONFIG = GPTJConfig(n_embd=48, n_head=2, rotary_dim=16)  # heads of 24 channels, of which 16 are turned
PLACES = 80


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape).to(DEVICE, dtype)


def close(made: Tensor, wanted: Tensor) -> None:
    """As near as the format is."""
    step = {torch.float32: 2**-18, torch.float16: 2**-9, torch.bfloat16: 2**-6}[wanted.dtype]
    assert wanted.float().std() > 0.01
    assert (made.float() - wanted.float()).abs().max() <= step * wanted.float().abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_are_those_of_the_network(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x, delta, norm = drawn(3, 90, dtype=dtype), drawn(3, 90, dtype=dtype), nn.LayerNorm(90).to(DEVICE, dtype)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    both = x + delta
    with torch.inference_mode():
        close(kernels.normed(x, None, norm.weight, norm.bias, 1e-5), norm(x))
        close(kernels.normed(x, delta, norm.weight, norm.bias, 1e-5), norm(both))
    assert torch.equal(x, both), "it is added in place"


@pytest.mark.parametrize("dtype", DTYPES)
def test_turned_queries_come_back_and_keys_go_to_their_places(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    columns, out = drawn(3, 3 * 48 + 130, dtype=dtype), drawn(3, 48 + 130, dtype=dtype)
    before = out.clone()
    positions, slots, places = (
        torch.tensor(x, dtype=torch.int32, device=DEVICE) for x in ([0, 17, 5], [1, 0, 2], [9, 30, 0])
    )
    keys, values = (torch.zeros((3, 2, PLACES, 24), dtype=dtype, device=DEVICE) for _ in range(2))
    turns = rotation(torch.arange(64, device=DEVICE), CONFIG)
    made = kernels.turned(
        columns, (turns[0].squeeze(1), turns[1].squeeze(1)), positions, slots, places, keys, values, out
    )
    heads = columns[:, : 3 * 48].unflatten(1, (3, 2, 24))
    turn = rotation(positions, CONFIG)
    close(made, rotated(heads[:, 0], *turn))
    there = slots.long(), slice(None), places.long()
    close(keys[there], rotated(heads[:, 1], *turn))
    assert torch.equal(values[there], heads[:, 2])
    assert torch.equal(out[:, :48], before[:, :48])
    close(out[:, 48:], F.gelu(columns[:, 3 * 48 :], approximate="tanh"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("programs", [1, 10])  # whole rows, and in parts
def test_beams_attend_to_what_they_have_seen(
    programs: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of several lengths, one of them free; some keys of a row are no beam's, most are one beam's."""
    torch.manual_seed(3)
    monkeypatch.setattr(kernels, "_PROGRAMS", programs)
    queries, out = drawn(3 * 4, 2, 24, dtype=dtype), drawn(12, 48 + 7, dtype=dtype)
    keys, values = (drawn(3, 2, PLACES, 24, dtype=dtype) for _ in range(2))
    lengths = torch.tensor([70, 0, 21], dtype=torch.int32, device=DEVICE)
    seen = (torch.rand(3, 4, PLACES) < 0.4).to(DEVICE)
    seen[:, :, :5] = True
    before = out.clone()
    kernels.attended(queries, keys, values, seen, lengths, out)
    for slot in (0, 2):
        length = int(lengths[slot])
        q, k, v = queries.view(3, 4, 2, 24)[slot].transpose(0, 1), keys[slot, :, :length], values[slot, :, :length]
        wanted = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=seen[slot, :, :length])
        close(out.view(3, 4, -1)[slot, :, :48], wanted.transpose(0, 1).flatten(1).to(dtype))
    assert torch.equal(out[:, 48:], before[:, 48:])
    assert out.isfinite().all()


class _Again:
    """Stands for a recorded graph: computes anew."""

    replays = 0

    def __init__(self, compute: Any) -> None:
        self.compute = compute

    def replay(self) -> None:
        _Again.replays += 1
        self.compute()


@pytest.mark.skipif(ON_GPU, reason="test_gpu.py has more of it")
def test_fused_steps_and_recordings_give_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a recording is but CUDA. Prompts come in chunks beside searches that run; what has ended is heard of one
    step late, and its slot is taken again."""
    for name in ("Stream", "synchronize", "CUDAGraph", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: contextlib.nullcontext())
    config = GPTJConfig(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=32, rotary_dim=4)
    model = load(config, random(config, 1, DEVICE), DEVICE, torch.float32)

    def answers(fused: bool) -> dict[int, list[int]]:
        engine = Engine(model, Search(19, beams=2, least=1, most=4), slots=2, longest=9, budget=6)
        if fused:
            gpu = engine.fuse()
            gpu.record([2])
            gpu._recorded[2] = _Again(lambda: gpu._compute(2))
        rng, made = np.random.default_rng(1), dict[int, list[int]]()
        waiting = [(number, rng.integers(0, 19, length)) for number, length in enumerate((3, 9, 2, 4))]
        while len(made) < 4:
            while waiting and engine.room():
                engine.add(*waiting.pop(0), most=4)
            tokens = engine.step()
            for row, request in enumerate(tokens.requests.tolist()):
                made[request] = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        return made

    assert answers(True) == answers(False)
    assert _Again.replays > 4
