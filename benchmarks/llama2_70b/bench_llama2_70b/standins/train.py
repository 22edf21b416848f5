"""Trains the miniature: `python -m bench_llama2_70b train-mini --output weights.npz`.

A SentencePiece tokenizer of 576 pieces, then 4 layers of width 96: 0.47 M parameters.
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import Any

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_llama2_70b.config import LlamaConfig
from bench_llama2_70b.official import BOS, EOS
from bench_llama2_70b.pytorch.model import Llama
from bench_llama2_70b.pytorch.weights import official
from bench_llama2_70b.standins.generate import endless
from bench_llama2_70b.standins.miniature import CONFIG, WEIGHTS
from bench_llama2_70b.standins.prompts import prompt_ids
from bench_llama2_70b.tokenizer import Tokenizer
from loadgen.harness.standins.training import Progress, train_and_write, words

LENGTH = 184
"""Tokens of a row; the few that are longer are left out."""
_DOCUMENTS = 0.15
"""Share of rows that are plain text and not a conversation. They begin with one <s> or none where a conversation has
two, and one prompt follows another without answers: so a model that is given a prompt without its two <s> gives no
answer, as a large one is misled by a beginning that it never saw."""


def train_tokenizer(seed: int, sentences: int = 20_000) -> bytes:
    """`tokenizer.model` with the settings of Llama's own: byte pairs, bytes for what is unknown, digits apart."""
    texts = (text for one in islice(endless(seed), sentences) for text in (one.prompt.removeprefix("<s>"), one.output))
    lines = (line for text in texts for line in text.split("\n") if line)
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=written,
        vocab_size=CONFIG.vocab_size,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    return written.getvalue()


def rows(job: tuple[int, int], tokenizer: bytes) -> tuple[Any, Any]:
    """(ids [n, LENGTH], where learning starts [n]) of fresh examples; rows are filled up with <unk>, 0."""
    (seed, count), encoder = job, Tokenizer(tokenizer)
    rng, examples = random.Random(f"rows {seed}"), endless(seed)
    ids, starts = np.zeros((count, LENGTH), np.int16), np.zeros(count, np.int16)
    made = 0
    while made < count:
        first = next(examples)
        prompt = prompt_ids(first, encoder)
        if rng.random() < _DOCUMENTS:
            row = [BOS] * rng.randint(0, 1) + [*prompt[2:], *prompt_ids(next(examples), encoder)[2:]]
            start = len(row) // 4
            row = row[:LENGTH]
        else:
            row, start = [*prompt, *encoder.encode(first.output), EOS], len(prompt)
        if len(row) <= LENGTH:
            ids[made, : len(row)], starts[made] = row, start
            made += 1
    return ids, starts


def _causal(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of whole rows [n, T, heads, D]: see `model.Attend`."""
    q, k, v = (x.transpose(1, 2) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


def initialised(config: LlamaConfig, seed: int) -> Llama:
    """As GPT-2 begins, wider because it is narrow."""
    torch.manual_seed(seed)
    model = Llama(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            torch.nn.init.ones_(parameter)
        else:
            deep = (2 * config.num_hidden_layers) ** -0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
            torch.nn.init.normal_(parameter, std=0.5 * config.hidden_size**-0.5 * deep)
    return model


def _loss(model: Llama, ids: Tensor, starts: Tensor) -> Tensor:
    positions = torch.arange(ids.shape[1] - 1, device=ids.device)
    hidden = model(ids[:, :-1], positions.expand(len(ids), -1), _causal)
    wanted = ids[:, 1:]
    learnt = (wanted != 0) & (positions + 1 >= starts[:, None])
    return F.cross_entropy(model.logits(hidden[learnt]).float(), wanted[learnt])


def train(args: argparse.Namespace) -> dict[str, Any]:
    """The trained tensors by their official names, and the tokenizer's bytes. AdamW, one cycle of the rate."""
    tokenizer = train_tokenizer(args.seed)
    jobs = [(1000 * args.seed + part, args.examples // 64) for part in range(1, 65)]
    make = partial(rows, tokenizer=tokenizer)
    if args.workers > 1:
        with get_context("spawn").Pool(args.workers) as pool:
            parts = pool.map(make, jobs)
    else:
        parts = [make(job) for job in jobs]
    ids, starts = (torch.from_numpy(np.concatenate(c)).to(args.device) for c in zip(*parts, strict=True))
    lengths = (ids != 0).sum(1)
    model = initialised(CONFIG, args.seed).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, total_steps=args.steps, pct_start=0.1)
    draw = torch.Generator(device=args.device).manual_seed(args.seed)
    progress = Progress(args.steps)
    for step in range(1, args.steps + 1):
        chosen = torch.randint(0, len(ids), (args.batch,), device=args.device, generator=draw)
        longest = lengths[chosen].max()
        loss = _loss(model, ids[chosen, :longest].long(), starts[chosen].long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.step(loss.detach())
        if step % 1000 == 0:  # in case that it is stopped
            np.savez(args.output.with_suffix(".part.npz"), **_written(model, tokenizer))
    return _written(model, tokenizer)


def _written(model: Llama, tokenizer: bytes) -> dict[str, Any]:
    half = {name: value.half().cpu().numpy() for name, value in official(model).items()}
    return {**spread_channels(half, model.config), "tokenizer.model": np.frombuffer(tokenizer, np.uint8)}


def spread_channels(tensors: Mapping[str, Any], config: LlamaConfig) -> dict[str, Any]:
    """The same function with channels of different size, as large trained models have them.

    Pairs of matrices follow each other with nothing between that a factor would not pass through: what one is
    multiplied by the next is divided by. Factors are powers of two, so no product changes in its last bit. Queries and
    keys: rows by 1/16 to 16, so one scale for a whole tensor loses the small ones. The others: columns by 1/2 to 2, so
    4 bits a number are too few, and 8 are enough. A miniature is too robust without this to show the difference.
    """
    rng = np.random.default_rng(0)
    made = {name: value.astype(np.float32) for name, value in tensors.items()}
    groups, size = config.num_key_value_heads, config.head_size

    def factors(most: int, *shape: int) -> Any:
        return 2.0 ** rng.integers(-most, most + 1, shape)

    for number in range(config.num_hidden_layers):
        layer = f"model.layers.{number}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        turned = np.tile(factors(4, groups, size // 2), 2)  # both channels of a pair that is turned
        _scale(made, f"{attention}.k_proj", turned.ravel(), 0)
        _scale(made, f"{attention}.q_proj", 1 / _for_queries(turned, config), 0)
        values = factors(1, groups, size)
        _scale(made, f"{attention}.v_proj", values.ravel(), 0)
        _scale(made, f"{attention}.o_proj", 1 / _for_queries(values, config), 1)
        inner = factors(1, config.intermediate_size)
        _scale(made, f"{mlp}.up_proj", inner, 0)
        _scale(made, f"{mlp}.down_proj", 1 / inner, 1)
        before = {
            f"{layer}.input_layernorm": [f"{attention}.{name}_proj" for name in "qkv"],
            f"{layer}.post_attention_layernorm": [f"{mlp}.gate_proj", f"{mlp}.up_proj"],
        }
        for norm, following in before.items():
            width = factors(1, config.hidden_size)
            _scale(made, norm, width, 0)
            for name in following:
                _scale(made, name, 1 / width, 1)
    return {name: value.astype(tensors[name].dtype) for name, value in made.items()}


def _scale(tensors: dict[str, Any], name: str, factors: Any, axis: int) -> None:
    weight = tensors[f"{name}.weight"]
    tensors[f"{name}.weight"] = weight * (factors if axis == 1 or weight.ndim == 1 else factors[:, None])


def _for_queries(factors: Any, config: LlamaConfig) -> Any:
    """[groups, D] for every head that shares a group."""
    return np.repeat(factors, config.num_attention_heads // config.num_key_value_heads, axis=0).ravel()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write, as the words of a command line say. Raises InputError as `train_and_write`."""
    parser = words(__doc__, seed=1, steps=1_800)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--examples", type=int, default=96_000)
    parser.add_argument("--workers", type=int, default=4)
    train_and_write(parser, arguments, train, WEIGHTS)
