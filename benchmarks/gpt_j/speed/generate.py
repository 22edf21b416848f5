"""Batched beam searches beside Hugging Face's `generate`, one prompt at a time as the reference app does.

`python speed/generate.py`: a random GPT-J of 8 layers and width 512, prompts of 100 to 300 tokens, answers of 40; both
in FP32 on the same threads, in alternating pairs, and their answers compared. Needs the extra `tests`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers

from bench_gpt_j.config import GPTJConfig
from bench_gpt_j.pytorch.engine import Engine, Search
from bench_gpt_j.pytorch.weights import load

CONFIG = GPTJConfig(vocab_size=8192, n_embd=512, n_layer=8, n_head=8, n_positions=512, rotary_dim=32)
LEAST, MOST, END = 20, 40, 8191


def theirs() -> Any:
    """Hugging Face's, with weights large enough that answers are not ties."""
    sizes = {name: getattr(CONFIG, name) for name in ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions")}
    torch.manual_seed(1)
    options = transformers.GPTJConfig(**sizes, rotary_dim=CONFIG.rotary_dim, bos_token_id=END, eos_token_id=END)
    model = transformers.GPTJForCausalLM(options).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.1)
    return model


def generated(model: Any, prompts: list[Any]) -> list[list[int]]:
    """One at a time."""
    made = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt)[None]
        answer = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=4,
            early_stopping=True,
            min_new_tokens=LEAST,
            max_new_tokens=MOST,
            pad_token_id=END,
            do_sample=False,
        )
        made.append(answer[0, len(prompt) :].tolist())
    return made


def batched(model: Any, prompts: list[Any]) -> list[list[int]]:
    """All as there is room."""
    engine = Engine(load(CONFIG, model.state_dict().__getitem__, torch.device("cpu"), torch.float32),
                    Search(END, least=LEAST, most=MOST), min(16, len(prompts)), 300)  # fmt: skip
    made: dict[int, list[int]] = {}
    added = 0
    while len(made) < len(prompts):
        for _ in range(min(engine.room(), len(prompts) - added)):
            engine.add(added, prompts[added], MOST)
            added += 1
        tokens = engine.step()
        for row, request in enumerate(tokens.requests.tolist()):
            made[request] = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
    return [made[number] for number in range(len(prompts))]


def timed(function: Callable[[Any, list[Any]], list[list[int]]], model: Any, prompts: list[Any]) -> tuple[float, Any]:
    """(seconds of processor time, the answers)."""
    began = time.process_time()
    answers = function(model, prompts)
    return time.process_time() - began, answers


def main() -> None:
    """Print a line a pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng, model = np.random.default_rng(1), theirs()
    prompts = [rng.integers(0, END, rng.integers(100, 301)) for _ in range(args.prompts)]
    for number in range(args.pairs):
        alone, wanted = timed(generated, model, prompts)
        together, made = timed(batched, model, prompts)
        same = sum(a == b for a, b in zip(made, wanted, strict=True))
        said = f"generate {alone:.1f} s, batched {together:.1f} s of processor time: {alone / together:.2f}x"
        print(f"pair {number + 1}: {said}; {same} of {len(prompts)} answers equal", flush=True)


if __name__ == "__main__":
    main()
