"""A GPU's kernels beside plain PyTorch. Without a GPU Triton interprets them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton", reason="Triton is for Linux only")

from bench_llama2_70b.config import LlamaConfig, write_config
from bench_llama2_70b.pytorch import kernels
from bench_llama2_70b.pytorch.backend import Rank
from bench_llama2_70b.pytorch.kernels import Tiles
from bench_llama2_70b.pytorch.model import RMSNorm, rotated, rotation, rounded8
from loadgen.contracts import BackendOptions

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPES = [torch.float32, torch.bfloat16 if ON_GPU else torch.float16]  # NumPy, which interprets, has no bfloat16


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(DEVICE, dtype)


def whole(rows: kernels.Rows) -> Tensor:
    """In float32."""
    values = rows.values.float()
    return values if rows.scales is None else values * rows.scales


def close(made: Tensor, wanted: Tensor, eight: bool) -> None:
    """As near as the format is: a number may be rounded to a neighbour."""
    step = 2**-3 if eight else {torch.float32: 2**-18, torch.float16: 2**-9, torch.bfloat16: 2**-6}[wanted.dtype]
    wanted = wanted.float()
    near = (made.float() - wanted).abs() <= step * wanted.abs() + (2**-9 if eight else step) * wanted.abs().max()
    assert wanted.std() > 0.01
    if eight and not ON_GPU:  # the interpreter loses the carry of a number that is rounded up to a power of two
        assert near.float().mean() > 0.9
    else:
        assert near.all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eight", [False, True])
def test_norms_and_gates_are_those_of_the_network(dtype: torch.dtype, eight: bool) -> None:
    torch.manual_seed(1)
    x, delta, norm = drawn(3, 90, dtype=dtype), drawn(3, 90, dtype=dtype), RMSNorm(90, 1e-5).to(DEVICE, dtype)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    both = x + delta
    with torch.inference_mode():
        close(whole(kernels.normed(x, None, norm.weight, 1e-5, eight)), norm(x), eight)
        close(whole(kernels.normed(x, delta, norm.weight, 1e-5, eight)), norm(both), eight)
        assert torch.equal(x, both), "it is added in place"
        columns = drawn(3, 180, dtype=dtype)
        gate, up = columns.chunk(2, dim=-1)
        close(whole(kernels.gated(columns, eight)), F.silu(gate) * up, eight)
        close(whole(kernels.rounded(x, eight)), x, eight)


def test_a_scale_makes_the_largest_number_the_largest_of_8_bits() -> None:
    x = drawn(4, 70)
    made, (wanted, scale) = kernels.rounded(x, True), rounded8(x)
    assert made.scales is not None
    torch.testing.assert_close(made.scales, scale)
    assert (made.values.float() == wanted.float()).float().mean() > 0.98


CONFIG = LlamaConfig(hidden_size=96, num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=64)
PAGE = 4


def cache(dtype: torch.dtype, pages: int = 12) -> tuple[Tensor, Tensor]:
    shape = (pages, CONFIG.num_key_value_heads, PAGE, CONFIG.head_size)
    keys, values = (torch.randn(shape).to(DEVICE, dtype) for _ in range(2))
    return keys, values


@pytest.mark.parametrize("kept", [None, torch.float8_e4m3fn])
@pytest.mark.parametrize("dtype", DTYPES)
def test_turned_queries_come_back_and_keys_go_to_their_places(dtype: torch.dtype, kept: torch.dtype | None) -> None:
    torch.manual_seed(2)
    columns, positions = drawn(3, 10 * 16, dtype=dtype), torch.tensor([0, 17, 5], dtype=torch.int32, device=DEVICE)
    places = torch.tensor([9, 30, 0], dtype=torch.int32, device=DEVICE)
    keys, values = cache(kept or dtype)
    turns = rotation(torch.arange(64, device=DEVICE), CONFIG)
    queries = kernels.turned(columns, (turns[0].squeeze(1), turns[1].squeeze(1)), positions, places, keys, values)
    heads = columns.unflatten(-1, (10, 16))
    wanted = rotated(heads[:, :8].float(), *rotation(positions, CONFIG)).to(dtype)
    close(queries, wanted[:, :6], False)
    there = places.long() // PAGE, slice(None), places.long() % PAGE
    close(keys.float()[there].to(dtype), wanted[:, 6:], kept is not None)
    close(values.float()[there].to(dtype), heads[:, 8:], kept is not None)


def plain(query: Tensor, keys: Tensor, values: Tensor, pages: list[int], position: int) -> Tensor:
    """One token [heads, D] over the first `position` + 1 tokens of these pages."""
    k, v = (x.float()[pages].transpose(0, 1).flatten(1, 2)[:, : position + 1] for x in (keys, values))
    return F.scaled_dot_product_attention(query.float()[:, None], *(x.repeat_interleave(3, 0) for x in (k, v)))[:, 0]


TABLE = [[3, 7, 1, 2, 9], [5, 4, 8, 0, 0], [6, 11, 10, 0, 0]]


@pytest.mark.parametrize("kept", [None, torch.float8_e4m3fn])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("programs", [1, 16])  # whole contexts, and in parts
def test_attention_reads_pages_in_place(
    programs: int, dtype: torch.dtype, kept: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tokens that are generated, and 7 and then 2 of a prompt, in tiles of 5; keys in blocks not all full."""
    torch.manual_seed(3)
    monkeypatch.setattr(kernels, "_PROGRAMS", programs)
    monkeypatch.setattr(kernels, "_KEYS", 32)
    queries, (keys, values) = drawn(11, 6, 16, dtype=dtype), cache(kept or dtype)
    pages = torch.tensor(TABLE, dtype=torch.int32, device=DEVICE)
    positions = [18, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    rows = [0, 1, *[2] * 9]
    made = torch.empty_like(queries)

    def tiles(*columns: list[int]) -> Tiles:
        return Tiles(*(torch.tensor(column, dtype=torch.int32, device=DEVICE) for column in columns))

    kernels.attended(queries, keys, values, tiles([0, 1], [0, 1], [1, 1], [18, 2]), pages, 1, made)
    kernels.attended(queries, keys, values, tiles([2, 2], [2, 7], [5, 4], [3, 8]), pages, 5, made)
    wanted = [plain(q, keys, values, TABLE[row], at) for q, row, at in zip(queries, rows, positions, strict=True)]
    close(made, torch.stack(wanted).to(dtype), False)


def test_columns_of_a_step_begin_where_triton_expects_them(tmp_path: Path) -> None:
    """A pointer that is at a multiple of 16 bytes in one step, and not in the next, has a kernel compiled anew."""
    write_config(tmp_path / "config.json", LlamaConfig(64, 32, 48, 1, 4, 2, 32))
    gpu = Rank(BackendOptions(tmp_path, extra={"seed": 1})).engine.fuse()
    columns = [np.arange(3), np.arange(0), np.arange(5), np.arange(1)]
    there = gpu._there(columns)
    assert [x.tolist() for x in there] == [column.tolist() for column in columns]
    assert [x.storage_offset() % 4 for x in there] == [0] * 4


class _Again:
    """Stands for a recorded graph: computes anew from the columns that the recording reads."""

    def __init__(self, recorded: Any) -> None:
        self.recorded, self.replays = recorded, 0

    def replay(self) -> None:
        self.replays += 1
        self.recorded._ids.copy_(self.recorded._compute())


@pytest.mark.skipif(ON_GPU, reason="test_gpu.py has more of it")
def test_fused_steps_and_recordings_give_the_same_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a recording is but CUDA: rows beyond a step's own are filled with what nobody reads. A prompt comes in
    chunks beside a request that generates."""
    for name in ("Stream", "synchronize", "CUDAGraph", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(kernels, "_LANES", 32)
    write_config(tmp_path / "config.json", LlamaConfig(64, 32, 48, 1, 4, 2, 32))

    def answers(fused: bool) -> tuple[dict[int, list[int]], Any]:
        engine = Rank(BackendOptions(tmp_path, max_batch=3, extra={"seed": 1, "step_tokens": 6})).engine
        recorded: dict[int, Any] = {}
        if fused:
            gpu = engine.fuse()
            gpu.compile()
            gpu.record([1, 3], 2)
            recorded = gpu.recorded
            for one in recorded.values():
                one._graph = _Again(one)
        made: dict[int, list[int]] = {number: [] for number in range(3)}
        rng = np.random.default_rng(1)
        for number, (prompt, most) in enumerate([(2, 2), (8, 4), (3, 2)]):
            engine.planner.add(number, rng.integers(3, 64, prompt), most)
        while any(len(made[n]) < most for n, most in enumerate((2, 4, 2))):
            tokens = engine.step()
            for row, request in enumerate(tokens.requests.tolist()):
                made[request] += tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        return made, recorded

    (wanted, _), (made, recorded) = answers(False), answers(True)
    assert made == wanted
    assert [one._graph.replays > 0 for one in recorded.values()] == [True, True]
