"""Our GPT-J beside Hugging Face's: logits, and answers of a beam search token for token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bench_gpt_j.config import GPTJConfig, weight_shapes
from bench_gpt_j.pytorch.checkpoint import opened
from bench_gpt_j.pytorch.engine import Engine, Search
from bench_gpt_j.pytorch.model import GPTJ, causal
from bench_gpt_j.pytorch.weights import load, official
from loadgen.contracts import InputError, RequestError

END = 49
SMALL = GPTJConfig(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=128, rotary_dim=8)


def theirs(seed: int, config: GPTJConfig = SMALL) -> Any:
    """Hugging Face's model with random weights, sharper than theirs at the start, biases and norms too."""
    sizes = {name: getattr(config, name) for name in ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions")}
    made = transformers.GPTJConfig(
        **sizes, rotary_dim=config.rotary_dim, bos_token_id=END, eos_token_id=END, attn_implementation="eager"
    )
    torch.manual_seed(seed)
    model = transformers.GPTJForCausalLM(made).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            wide = 0.5 if "lm_head" in name else 0.3
            parameter.copy_(float("ln" in name and "weight" in name) + wide * torch.randn_like(parameter))
    return model


def ours(model: Any, config: GPTJConfig = SMALL) -> GPTJ:
    """The same weights in our layers."""
    return load(config, model.state_dict().__getitem__, torch.device("cpu"), torch.float32)


def prompts(count: int, seed: int, longest: int = 40) -> list[Any]:
    """Of mixed lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, END, rng.integers(1, longest + 1)) for _ in range(count)]


LEAST, MOST = 4, 12
SEARCH = Search(end=END, least=LEAST, most=MOST)


def generated(model: Any, prompt: Any, **options: Any) -> list[int]:
    """Hugging Face's answer."""
    ids = torch.from_numpy(prompt)[None]
    wanted: dict[str, Any] = {"num_beams": 4, "early_stopping": True, "min_new_tokens": LEAST, "max_new_tokens": MOST}
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), pad_token_id=END, do_sample=False, **(wanted | options)
    )
    answer: list[int] = made[0, len(prompt) :].tolist()
    return answer


def answers(engine: Engine, asked: list[Any], most: int = MOST) -> list[list[int]]:
    """Ours, admitted as there is room."""
    waiting, made = list(enumerate(asked)), dict[int, list[int]]()
    while len(made) < len(asked):
        for _ in range(min(engine.room(), len(waiting))):
            number, prompt = waiting.pop(0)
            engine.add(number, prompt, most)
        tokens = engine.step()
        parts = np.split(tokens.ids, tokens.offsets[1:-1]) if len(tokens.requests) else []
        made.update((n, p.tolist()) for n, p in zip(tokens.requests.tolist(), parts, strict=True))
    return [made[number] for number in range(len(asked))]


def test_logits_are_those_of_hugging_face() -> None:
    model = theirs(1)
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 50, (3, 60)))
    mine = ours(model)
    with torch.inference_mode():
        made = mine.logits(mine(ids, torch.arange(60).expand(3, -1), causal))
        wanted = model(ids).logits
    assert (made - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("slots", [1, 7, 32])
def test_answers_are_those_of_hugging_face_whatever_the_batch(slots: int) -> None:
    """200 prompts over 10 models with 20 each; lengths are mixed, some answers end early and some are cut off."""
    lengths = set()
    for seed in range(10):
        model, asked = theirs(seed), prompts(20, seed)
        made = answers(Engine(ours(model), SEARCH, slots, 40, budget=100), asked)
        assert made == [wanted_of(model, seed, number, prompt) for number, prompt in enumerate(asked)]
        lengths |= {len(answer) for answer in made}
    assert min(lengths) < MOST
    assert max(lengths) == MOST


_WANTED: dict[tuple[int, int], list[int]] = {}


def wanted_of(model: Any, seed: int, number: int, prompt: Any) -> list[int]:
    """Hugging Face is asked once for all batch sizes."""
    if (seed, number) not in _WANTED:
        _WANTED[seed, number] = generated(model, prompt)
    return _WANTED[seed, number]


def test_beams_of_another_number_and_none() -> None:
    model, asked = theirs(3), prompts(8, 3)
    for beams in (1, 2, 6):
        made = answers(Engine(ours(model), Search(END, beams, LEAST, MOST), 4, 40), asked)
        assert made == [generated(model, prompt, num_beams=beams) for prompt in asked]


def test_the_length_of_2023_is_that_of_prompt_and_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face's own search with the old divisor: all tokens before the end, or all if there is no end."""
    update = transformers.GPTJForCausalLM._update_finished_beams

    def as_in_2023(self: Any, **known: Any) -> Any:
        length = known["cur_len"]
        has_end = known["topk_running_sequences"][:, :, length] == END
        scores = known["topk_log_probs"] * torch.where(has_end, 1.0, length / (length + 1))
        return update(self, **(known | {"topk_log_probs": scores, "decoder_prompt_len": 1}))

    different = 0
    for seed in range(10):
        model, asked = theirs(seed), prompts(20, seed)
        made = answers(Engine(ours(model), Search(END, 4, LEAST, MOST, "full"), 16, 40), asked)
        with monkeypatch.context() as patch:
            patch.setattr(transformers.GPTJForCausalLM, "_update_finished_beams", as_in_2023)
            assert made == [generated(model, prompt) for prompt in asked]
        different += sum(one != wanted_of(model, seed, n, asked[n]) for n, one in enumerate(made))
    assert different > 5, "the rules differ"


def test_answers_that_never_end_are_as_long_as_asked() -> None:
    engine = Engine(ours(theirs(4)), Search(END, least=LEAST, most=MOST, never_ends=True), 3, 40)
    made = answers(engine, prompts(5, 4), most=9)
    assert [len(answer) for answer in made] == [9] * 5
    assert not any(END in answer for answer in made)


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    engine = Engine(ours(theirs(5)), SEARCH, 2, 16)
    for wrong in (0, 17):
        with pytest.raises(RequestError, match=f"{wrong} tokens, expected 1 to 16"):
            engine.add(7, np.zeros(wrong, np.int64), MOST)


def test_the_sizes_are_those_of_the_tests() -> None:
    assert SMALL.head_size > SMALL.rotary_dim  # a part of the channels is not turned


def test_both_kinds_of_files_give_the_same_weights(tmp_path: Path) -> None:
    """As Hugging Face writes them: safetensors in shards, and PyTorch's own, with the buffers of old files."""
    model = theirs(6)
    model.save_pretrained(tmp_path / "new", max_shard_size="30KB")
    assert len(list((tmp_path / "new").glob("*.safetensors"))) > 1
    old = tmp_path / "old"
    old.mkdir()
    buffers = {"transformer.h.0.attn.bias": torch.ones(1), "transformer.h.0.attn.masked_bias": torch.ones(1)}
    torch.save({**model.state_dict(), **buffers}, old / "pytorch_model.bin")
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    places = {name: f"pytorch_model-0000{1 + n % 2}-of-00002.bin" for n, name in enumerate(model.state_dict())}
    (sharded / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    for file in set(places.values()):
        torch.save({name: model.state_dict()[name] for name in places if places[name] == file}, sharded / file)
    for folder in (tmp_path / "new", old, sharded):
        with opened(folder) as found:
            assert dict(found.shapes) == weight_shapes(SMALL)
            made = official(load(SMALL, found.read, torch.device("cpu"), torch.float32))
        for name, value in model.state_dict().items():
            assert (made[name] == value).all(), (folder.name, name)


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.safetensors\.index\.json: no such file"), opened(tmp_path):
        pass
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../b.bin"}}')
    with pytest.raises(InputError, match="not a file beside it"), opened(tmp_path):
        pass
