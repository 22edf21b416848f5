"""Trains the miniature: `python -m bench_bert train-mini --output weights.npz`.

2 layers of width 64, 128 k parameters, 16,000 batches of 512 from 3 M generated windows: 3 minutes on
one H200, dev F1 92.1. Matching names by their pieces is learnt late and suddenly, after some 5,000 steps;
seed 3 had not learnt it after 16,000 and stayed at F1 78.6. Windows without the answer are trained to
point at [CLS], as BERT does on SQuAD.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_bert.config import BertConfig
from bench_bert.dataset import window_spans
from bench_bert.model import BertForQuestionAnswering
from bench_bert.standins import SIZES
from bench_bert.standins.generate import paragraph, vocabulary
from bench_bert.standins.miniature import WEIGHTS
from bench_bert.tokenizer import Tokenizer
from loadgen.harness.standins.training import Progress, train_and_write, words

CONFIG = BertConfig(
    vocab_size=len(vocabulary()),
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=SIZES["max_seq_length"],
)
Columns = tuple[Any, ...]


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer({piece: number for number, piece in enumerate(vocabulary())})


def windows(seed: int, count: int) -> Columns:
    """(ids [n, S], segments [n, S], labels [n, 2]) of fresh paragraphs, never those of the dev set."""
    rng, length = random.Random(seed), SIZES["max_seq_length"]
    tokenizer = _tokenizer()
    numbers = tokenizer.ids
    rows: list[list[int]] = []
    segments, labels = [], []
    while len(rows) < count:
        text, facts = paragraph(rng)
        ids: list[int] = []
        at, position = {}, 0
        for word in text.split(" "):
            at[position] = len(ids)
            ids += [numbers[piece] for piece in tokenizer.pieces(word)]
            position += len(word) + 1
        for fact in rng.sample(facts, min(4, len(facts))):
            question = rng.choice(fact.relation.questions).format(n=fact.person)
            query = [numbers[piece] for piece in tokenizer.pieces(question)][: SIZES["max_query_length"]]
            first = at[fact.start]
            last = first + len(tokenizer.pieces(fact.value)) - 1
            for start, end in window_spans(len(ids), length - len(query) - 3, SIZES["doc_stride"]):
                row = [numbers["[CLS]"], *query, numbers["[SEP]"], *ids[start:end], numbers["[SEP]"]]
                shift = len(query) + 2 - start
                inside = start <= first and last < end
                rows.append(row + [0] * (length - len(row)))
                segments.append([0] * (len(query) + 2) + [1] * (end - start + 1) + [0] * (length - len(row)))
                labels.append((first + shift, last + shift) if inside else (0, 0))
    columns = (rows, np.int16), (segments, np.uint8), (labels, np.int16)
    return tuple(np.array(values[:count], kind) for values, kind in columns)


def _task(job: tuple[int, int]) -> Columns:
    return windows(*job)


def _initialised(seed: int) -> BertForQuestionAnswering:
    """Larger than BERT's 0.02: a narrow net starts to attend by content only with larger products."""
    torch.manual_seed(seed)
    model = BertForQuestionAnswering(CONFIG)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            std = 0.06 if "embeddings" in name else 0.7 * CONFIG.hidden_size**-0.5
            torch.nn.init.normal_(parameter, std=std)
    return model


def train(args: argparse.Namespace) -> dict[str, Any]:
    """The trained tensors by their official names, their channels spread."""
    seed: int = args.seed
    steps: int = args.steps
    device: str = args.device
    jobs = [(1000 + part + 100_000 * seed, args.windows // 64) for part in range(64)]
    with multiprocessing.Pool(args.workers) as pool:
        parts = pool.map(_task, jobs)
    ids, segments, labels = (torch.tensor(np.concatenate(c), device=device) for c in zip(*parts, strict=True))
    model = _initialised(seed).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.01, betas=(0.9, 0.98))
    warmup = max(1, min(1000, steps // 10))

    def schedule(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
        return min(1.0, (step + 1) / warmup) * max(0.02, cosine)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    draw = torch.Generator(device=device).manual_seed(seed)
    progress = Progress(steps)
    for _ in range(steps):
        chosen = torch.randint(0, len(ids), (args.batch,), device=device, generator=draw)
        loss = _loss(model, ids[chosen].long(), segments[chosen].long(), labels[chosen].long(), device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        progress.step(loss.detach())
    return spread_channels({name: value.cpu().numpy() for name, value in model.state_dict().items()})


def _loss(model: BertForQuestionAnswering, ids: Tensor, segments: Tensor, labels: Tensor, device: str) -> Tensor:
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        start, end = model(ids, (ids != 0).long(), segments)
    return F.cross_entropy(start.float(), labels[:, 0]) + F.cross_entropy(end.float(), labels[:, 1])


def spread_channels(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same function with channels of very different size, as large trained Transformers have them.

    Each query channel is multiplied by a power of two between 1/16 and 16, and its key channel divided by
    it, so their products, and every answer, stay the same to the last bit. One int8 scale for a whole
    tensor now loses the small channels; one a channel does not. A miniature is too robust without this to
    show the difference (Bondarenko et al. 2021, Understanding and Overcoming the Challenges of Efficient
    Transformer Quantization).
    """
    rng = np.random.default_rng(0)
    spread = dict(tensors)
    for name in [n.removesuffix("query.bias") for n in tensors if n.endswith("query.bias")]:
        factor = 2.0 ** rng.integers(-4, 5, size=len(tensors[f"{name}query.bias"]))
        for part, scale in (("query", factor), ("key", 1 / factor)):
            for kind, column in (("weight", scale[:, None]), ("bias", scale)):
                spread[f"{name}{part}.{kind}"] = (tensors[f"{name}{part}.{kind}"] * column).astype(np.float32)
    return spread


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write, as the words of a command line say. Raises InputError as `train_and_write`."""
    parser = words(__doc__, seed=2, steps=16_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--windows", type=int, default=3_000_000)
    parser.add_argument("--workers", type=int, default=8)
    train_and_write(parser, arguments, train, WEIGHTS)
