"""Our Llama beside Hugging Face's: the same tokens from the same random weights, however requests come together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig as TheirConfig
from transformers import LlamaForCausalLM

from bench_llama2_70b.dataset import Batch
from bench_llama2_70b.pytorch.backend import Backend
from loadgen.contracts import BackendOptions

MOST, CONTEXT = 24, 96


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder as Hugging Face writes it, in three shards, and the model that it holds."""
    config = TheirConfig(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=0.25)
        model.lm_head.weight[2] *= 2  # the end of an answer comes up more often
    folder = tmp_path_factory.mktemp("theirs")
    model.save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("*.safetensors"))) >= 3
    return folder, model


def prompts(count: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 200, int(rng.integers(1, CONTEXT - MOST))) for _ in range(count)]


def greedy(model: Any, prompt: Any) -> list[int]:
    """What the reference app generates from one prompt."""
    given = torch.from_numpy(prompt)[None]
    mask = torch.ones_like(given)
    settings = {"max_new_tokens": MOST, "min_new_tokens": 1, "eos_token_id": 2, "pad_token_id": 2, "do_sample": False}
    with torch.inference_mode():
        made = model.generate(given, attention_mask=mask, **settings)
    return made[0, len(prompt) :].tolist()


def generate(backend: Backend, given: list[Any], at_once: list[int]) -> list[list[int]]:
    """Requests are added as `at_once` says: how many before each step; the rest when there is room."""
    answers: list[list[int]] = [[] for _ in given]
    added, done = 0, 0
    while done < len(given):
        count = min(at_once.pop(0) if at_once else len(given), backend.room(), len(given) - added)
        if count:
            wanted = given[added : added + count]
            backend.add(np.arange(added, added + count), Batch(wanted, np.full(count, MOST)))
            added += count
        tokens = backend.step(0.1)
        for row, request in enumerate(tokens.requests.tolist()):
            answers[request] += tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
        done += int(tokens.finished.sum())
    return answers


def options(folder: Path, batch: int, **more: Any) -> BackendOptions:
    return BackendOptions(folder, max_batch=batch, threads=1, **more)


@pytest.fixture(scope="session")
def expected(theirs: tuple[Path, Any]) -> list[list[int]]:
    answers = [greedy(theirs[1], prompt) for prompt in prompts(64)]
    assert len({len(answer) for answer in answers}) > 4, "some of them end early"
    return answers


@pytest.mark.parametrize(
    ("batch", "at_once", "extra"),
    [
        (1, [], {}),
        (5, [1, 0, 0, 2, 0, 1, 1], {}),
        (64, [], {}),
        (64, [10, 3, 0, 0, 20, 1], {"step_tokens": 7}),  # prompts in many chunks beside requests that generate
    ],
)
def test_the_same_tokens(
    batch: int, at_once: list[int], extra: dict[str, int], theirs: tuple[Path, Any], expected: list[list[int]]
) -> None:
    backend = Backend(options(theirs[0], batch, extra=extra))
    assert backend.load().dtype == "float32"
    count = 12 if batch < 64 else 64
    assert generate(backend, prompts(count), list(at_once)) == expected[:count]
    backend.close()
