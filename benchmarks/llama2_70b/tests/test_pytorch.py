"""Our Llama beside Hugging Face's: the same tokens from the same random weights, however requests come together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig as TheirConfig
from transformers import LlamaForCausalLM

from bench_llama2_70b.config import LlamaConfig, read_config, weight_shapes, write_config
from bench_llama2_70b.dataset import Batch
from bench_llama2_70b.memory import of_token, parameters
from bench_llama2_70b.pytorch import model as model_file
from bench_llama2_70b.pytorch import weights
from bench_llama2_70b.pytorch.backend import Backend, Rank, check_memory
from loadgen.contracts import BackendOptions, InputError
from loadgen.harness.serving.paging import Room

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
    ("batch", "at_once", "more"),
    [
        (1, [], {}),
        (5, [1, 0, 0, 2, 0, 1, 1], {}),
        (64, [], {}),
        (64, [10, 3, 0, 0, 20, 1], {"max_cost": 7}),  # prompts in many chunks beside requests that generate
    ],
)
def test_the_same_tokens(
    batch: int, at_once: list[int], more: dict[str, int], theirs: tuple[Path, Any], expected: list[list[int]]
) -> None:
    backend = Backend(options(theirs[0], batch, **more))
    assert backend.load().dtype == "float32"
    count = 12 if batch < 64 else 64
    assert generate(backend, prompts(count), list(at_once)) == expected[:count]
    backend.close()


def test_few_pages_change_no_answer(
    theirs: tuple[Path, Any], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU whose memory is short: requests give their pages back and are computed again."""

    def short(self: Any, config: LlamaConfig, share: Any, dtype: Any) -> Room:
        return Room(slots=16, longest=CONTEXT, pages=20, page=16, budget=64)

    monkeypatch.setattr(Rank, "_room", short)
    backend = Backend(options(theirs[0], 16))
    backend.load()
    assert generate(backend, prompts(24), []) == expected[:24]
    backend.close()


def test_two_ranks_give_the_same_tokens(theirs: tuple[Path, Any], expected: list[list[int]]) -> None:
    """One key-value head each, in two processes that meet by Gloo."""
    backend = Backend(options(theirs[0], 8, devices=("cpu", "cpu")))
    try:
        assert backend.load().device == "cpu + cpu"
        assert generate(backend, prompts(10), [3, 0, 2]) == expected[:10]
        (child,) = backend.ranks._children  # type: ignore[union-attr]
    finally:
        backend.close()
    assert not child.is_alive()


def test_a_rank_that_is_gone_is_said(theirs: tuple[Path, Any]) -> None:
    backend = Backend(options(theirs[0], 8, devices=("cpu", "cpu")))
    backend.load()
    (child,) = backend.ranks._children  # type: ignore[union-attr]
    child.kill()
    child.join()
    with pytest.raises(RuntimeError, match="rank 1"):
        backend.step(0.1)
    backend.close()


def test_heads_must_divide_by_the_devices(theirs: tuple[Path, Any]) -> None:
    with pytest.raises(InputError, match="3 devices: 2 key-value heads"):
        Backend(options(theirs[0], 8, devices=("cpu",) * 3)).load()


def test_logits_are_theirs(theirs: tuple[Path, Any]) -> None:
    """Not only the largest of them."""
    folder, model = theirs
    rank = Rank(options(folder, 1))
    prompt = torch.from_numpy(prompts(1)[0])

    def causal(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(0, 1)

    with torch.inference_mode():
        ours = rank.engine.model.logits(rank.engine.model(prompt, torch.arange(len(prompt)), causal))
        assert torch.allclose(ours, model(prompt[None]).logits[0], atol=1e-4)


def test_weights_go_back_to_their_names(theirs: tuple[Path, Any]) -> None:
    rank = Rank(options(theirs[0], 1))
    back, state = weights.official(rank.engine.model), theirs[1].state_dict()
    assert {name: tuple(value.shape) for name, value in back.items()} == weight_shapes(rank.engine.model.config)
    assert all(torch.equal(back[name], state[name]) for name in back)


def test_eight_bits_round_by_a_few_percent() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, 256), torch.randn(32, 256)
    rounded, scale = model_file.rounded8(weight)
    exact, ours = x @ weight.t(), model_file.linear8(x, rounded, scale)
    assert rounded.dtype == torch.float8_e4m3fn
    assert 1e-3 < (exact - ours).norm() / exact.norm() < 0.06


def test_random_weights_follow_from_the_seed_and_never_end(tmp_path: Path) -> None:
    """The synthetic profile draws its weights, and its answers are as long as they are asked to be."""
    config = LlamaConfig(400, 64, 96, 2, 8, 4, CONTEXT)
    write_config(tmp_path / "config.json", config)
    answers = []
    for seed in (1, 1, 2):
        backend = Backend(options(tmp_path, 4, dtype="float8", extra={"seed": seed}))
        backend.load()
        answers.append(generate(backend, prompts(3, seed=5), []))
        backend.close()
    assert answers[0] == answers[1] != answers[2]
    assert {len(answer) for answer in answers[0]} == {MOST}


@pytest.mark.parametrize(
    ("dtype", "devices", "memory", "message"),
    [
        (torch.bfloat16, 1, 151e9, "69.0 B parameters take 138.0 GB on each of 1 GPUs of 151.0 GB: use --dtype float8"),
        (torch.float8_e4m3fn, 1, 80e9 * 0.9, "use --dtype float8 --gpus-per-worker 2"),
        (torch.float32, 8, 16e9, "use --dtype float8 --gpus-per-worker 8"),
        (torch.float32, 1, 1e9, "a smaller Llama"),
    ],
)
def test_a_gpu_too_small_hears_what_fits(dtype: Any, devices: int, memory: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_memory(LlamaConfig(), devices, dtype, int(memory))


def test_a_gpu_that_is_large_enough_is_taken() -> None:
    check_memory(LlamaConfig(), 1, torch.float8_e4m3fn, int(141e9))
    check_memory(LlamaConfig(), 2, torch.bfloat16, int(80e9))


def test_a_missing_shard_is_named(theirs: tuple[Path, Any], tmp_path: Path) -> None:
    for file in theirs[0].iterdir():
        if "00002-of" not in file.name:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(InputError, match=r"model-00002-of-0000.*no such file"):
        Rank(options(tmp_path, 1))


def test_a_config_of_another_size_is_named(theirs: tuple[Path, Any], tmp_path: Path) -> None:
    for file in theirs[0].glob("*.safetensors*"):
        (tmp_path / file.name).symlink_to(file)
    write_config(tmp_path / "config.json", LlamaConfig(200, 64, 120, 3, 8, 2, CONTEXT))
    with pytest.raises(InputError, match=r"tensor 'model.layers.0.mlp.gate_proj.weight' has shape \[112, 64\]"):
        Rank(options(tmp_path, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mistral"}, "'model_type' is 'mistral'"),
        ({"rope_scaling": {"factor": 2}}, "'rope_scaling' is"),
        ({"hidden_size": 100}, "do not divide each other"),
        ({"num_hidden_layers": 0}, "'num_hidden_layers' is 0"),
        ({"tie_word_embeddings": True}, "'tie_word_embeddings' is True"),
    ],
)
def test_a_config_that_is_not_computed_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    write_config(file, LlamaConfig())
    assert read_config(file) == LlamaConfig()
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=message):
        read_config(file)


def test_their_newer_config_is_read(tmp_path: Path) -> None:
    """Without key-value heads of its own, and with the rotary base below `rope_parameters`."""
    file = tmp_path / "config.json"
    write_config(file, LlamaConfig())
    document = json.loads(file.read_text())
    del document["rope_theta"], document["num_key_value_heads"]
    file.write_text(json.dumps(document | {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}))
    assert (read_config(file).rope_theta, read_config(file).num_key_value_heads) == (5e5, 64)


def test_the_full_size_has_the_official_tensors() -> None:
    assert len(weight_shapes(LlamaConfig())) == 723
    assert parameters(LlamaConfig()) == 68_976_648_192
    assert of_token(LlamaConfig(), 2) == 327_680
