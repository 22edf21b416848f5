"""Trains the miniature: `python -m bench_gpt_j train-mini --output weights.npz`.

A tokenizer of byte pairs, then 2 layers of width 96.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor

from bench_gpt_j.config import GPTJConfig
from bench_gpt_j.official import END, INSTRUCTION, PROMPT, TOKENIZER
from bench_gpt_j.pytorch.model import GPTJ, causal
from bench_gpt_j.pytorch.weights import official
from bench_gpt_j.standins.generate import Example, endless
from bench_gpt_j.standins.miniature import CONFIG, WEIGHTS
from bench_gpt_j.tokenizer import Tokenizer
from loadgen.harness.standins.training import Progress, train_and_write, words

_FRAMED = 0.15
"""Share of steps, the last ones, in which prompts are whole. Before, they begin with the article: what a prompt begins
with is the same for all, and takes half of the time."""
_NEWS = 0.1
"""Weight of the article's own tokens beside the summary's."""


SPREAD = 1
"""Channels are made larger or smaller by up to this power of two: see `spread_channels`."""


def train_tokenizer(seed: int, examples: int = 4_000) -> bytes:
    """`tokenizer.json` of GPT-2's kind, of as many pairs as the miniature's vocabulary has room for."""
    tokenizer = tokenizers.Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteDecoder()
    texts = (prompt(one) + " " + one.summary for one in islice(endless(seed), examples))
    trainer = BpeTrainer(vocab_size=CONFIG.vocab_size - 1, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END])  # the last id, as in GPT-2
    document: str = tokenizer.to_str()
    return document.encode()


def prompt(one: Example) -> str:
    """As the dataset makes it."""
    return PROMPT.format(instruction=INSTRUCTION, input=one.article)


def rows(examples: Iterator[Example], encoder: Tokenizer, count: int, framed: bool) -> tuple[Tensor, Tensor]:
    """(ids [n, T], where summaries start [n]); rows are filled up with -1."""
    made, starts = [], []
    for one in islice(examples, count):
        text = prompt(one)
        ids = encoder.encode(text if framed else text[text.index("### Input") :])
        starts.append(len(ids))
        made.append([*ids, *encoder.encode(one.summary), encoder.end])
    table = np.full((count, max(map(len, made))), -1)
    for row, ids in zip(table, made, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(table), torch.tensor(starts)


def initialised(config: GPTJConfig, seed: int) -> GPTJ:
    """As GPT-2 begins, wider because it is narrow."""
    torch.manual_seed(seed)
    model = GPTJ(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            deep = (2 * config.n_layer) ** -0.5 if name.endswith("out.weight") else 1.0
            torch.nn.init.normal_(parameter, std=0.5 * config.n_embd**-0.5 * deep)
        elif not name.endswith("norm.weight"):
            torch.nn.init.zeros_(parameter)
    return model


def no_bias_of_queries(model: GPTJ) -> None:
    """Queries, keys and values have none: what a step gave them is taken away."""
    with torch.no_grad():
        for layer in model.layers:
            layer.into.bias[: 3 * model.config.n_embd].zero_()  # type: ignore[union-attr, index]


def loss_of(model: GPTJ, ids: Tensor, starts: Tensor) -> Tensor:
    """Of summaries, and a little of articles."""
    positions = torch.arange(ids.shape[1] - 1, device=ids.device)
    hidden = model(ids[:, :-1].clamp(min=0), positions.expand(len(ids), -1), causal)
    wanted = ids[:, 1:]
    real, summary = wanted >= 0, positions + 1 >= starts[:, None]
    losses = F.cross_entropy(model.logits(hidden[real]).float(), wanted[real], reduction="none")
    learnt = summary[real]
    return losses[learnt].mean() + _NEWS * losses[~learnt].mean()


def train(args: argparse.Namespace) -> dict[str, Any]:
    """The trained tensors by their official names, and the tokenizer's bytes. AdamW, one cycle of the rate."""
    document = train_tokenizer(args.seed)
    encoder, examples = Tokenizer(document), endless(args.seed)
    model = initialised(CONFIG, args.seed).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, total_steps=args.steps, pct_start=0.1)
    progress = Progress(args.steps)
    for step in range(args.steps):
        framed = step >= (1 - _FRAMED) * args.steps
        ids, starts = (x.to(args.device) for x in rows(examples, encoder, args.batch, framed))
        loss = loss_of(model, ids, starts)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        no_bias_of_queries(model)
        schedule.step()
        progress.step(loss.detach())
        if step % 200 == 199:  # in case that it is stopped
            np.savez(args.output.with_suffix(".part.npz"), **_written(model, document))
    return _written(model, document)


def _written(model: GPTJ, document: bytes) -> dict[str, Any]:
    """In float16, and the tokenizer as bytes."""
    tensors = {name: value.cpu().half().numpy() for name, value in official(model).items()}
    return {**spread_channels(tensors, model.config), TOKENIZER: np.frombuffer(document, np.uint8)}


def spread_channels(tensors: Mapping[str, Any], config: GPTJConfig) -> dict[str, Any]:
    """The same network with channels of very different size, as those of large models are.

    A channel is multiplied by a power of two where it is made and divided by it where it is used, so nothing that is
    computed changes, and rounding to few bits does. Both channels of a pair that is turned have the same factor.
    """
    rng = np.random.default_rng(0)
    made = {name: value.astype(np.float32) for name, value in tensors.items()}
    width, heads, turning = config.n_embd, config.n_head, config.rotary_dim
    for number in range(config.n_layer):
        layer = f"transformer.h.{number}"
        norm, values = _factors(rng, SPREAD, width), _factors(rng, SPREAD, width)
        keys = _factors(rng, SPREAD, heads, config.head_size)
        keys[:, 1:turning:2] = keys[:, :turning:2]
        for name in ("ln_1.weight", "ln_1.bias"):
            made[f"{layer}.{name}"] *= norm
        for name in ("attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.fc_in"):
            made[f"{layer}.{name}.weight"] /= norm
        made[f"{layer}.attn.k_proj.weight"] *= keys.reshape(-1, 1)
        made[f"{layer}.attn.q_proj.weight"] /= keys.reshape(-1, 1)
        made[f"{layer}.attn.v_proj.weight"] *= values[:, None]
        made[f"{layer}.attn.out_proj.weight"] /= values
    last = _factors(rng, SPREAD, width)
    for name in ("transformer.ln_f.weight", "transformer.ln_f.bias"):
        made[name] *= last
    made["lm_head.weight"] /= last
    return {name: value.astype(tensors[name].dtype) for name, value in made.items()}


def _factors(rng: np.random.Generator, most: int, *shape: int) -> Any:
    return (2.0 ** rng.integers(-most, most + 1, shape)).astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write, as the words of a command line say. Raises InputError as `train_and_write`."""
    parser = words(__doc__, seed=1, steps=2_200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=4e-3)
    train_and_write(parser, arguments, train, WEIGHTS)
