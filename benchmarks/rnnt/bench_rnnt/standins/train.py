"""Trains the miniature: `python -m bench_rnnt train-mini --output weights.npz`.

2,569 batches of 96 from 32,000 utterances: two minutes on one H200, of which half is the synthesis of speech on 8
cores. Features are computed on the device, by the code that is measured.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench_rnnt.config import RnntConfig
from bench_rnnt.features import MEL, SPLICE
from bench_rnnt.model import Rnnt
from bench_rnnt.official import ALPHABET
from bench_rnnt.pytorch.features import Featurizer
from bench_rnnt.standins.miniature import WEIGHTS
from bench_rnnt.standins.speech import Voice, Wave, sentence, speak
from loadgen.harness.standins.training import Progress, train_and_write, words

CONFIG = RnntConfig(
    encoder_hidden=112, pre_layers=2, post_layers=2, prediction_hidden=64, prediction_layers=2, joint_hidden=96
)
BLANK = len(ALPHABET)
_NEVER = -1e30  # a log-probability that stays finite when it is added up
_NOISIEST = 5.0  # dB below the speech: more than the test's


def transducer_loss(logits: Tensor, labels: Tensor, frames: Tensor, counts: Tensor) -> Tensor:
    """-log P(labels) of each utterance [B], summed over all ways to share its labels out over its frames (Graves 2012).

    logits [B, T, U + 1, 29]; labels [B, U]; frames, counts [B]: how much of T and U an utterance has. The cells of the
    lattice that lie on one diagonal do not depend on each other, so T + U - 1 steps compute it.
    """
    logs = logits.log_softmax(-1)
    blank = _diagonals(logs[..., BLANK])
    taken = logs[:, :, :-1].gather(3, labels[:, None, :, None].expand(-1, logs.shape[1], -1, 1))[..., 0]
    label = _diagonals(torch.nn.functional.pad(taken, (0, 1), value=_NEVER))
    alpha = torch.full_like(blank[0], _NEVER)
    alpha[:, 0] = 0.0
    alphas = [alpha]
    for stay, move in zip(blank[:-1], label[:-1], strict=True):
        moved = torch.nn.functional.pad((alpha + move)[:, :-1], (1, 0), value=_NEVER)
        alpha = torch.logaddexp(alpha + stay, moved)
        alphas.append(alpha)
    rows, last = torch.arange(len(frames), device=frames.device), frames - 1 + counts
    return -(torch.stack(alphas)[last, rows, counts] + blank[last, rows, counts])


def _diagonals(cells: Tensor) -> Tensor:
    """[B, T, W] -> [T + W - 1, B, W]: cell (t, u) lies on diagonal t + u; those that do not exist get _NEVER."""
    _, time, width = cells.shape
    at = torch.arange(time + width - 1, device=cells.device)[:, None] - torch.arange(width, device=cells.device)
    skewed = cells[:, at.clamp(0, time - 1), torch.arange(width, device=cells.device)]
    return skewed.masked_fill((at < 0) | (at >= time), _NEVER).transpose(0, 1)


def logits_of(model: Rnnt, x: Tensor, lengths: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """([B, T, U + 1, 29], frames [B]) of features [T, B, 240] and the labels [B, U] that are to come."""
    encoded, frames = model.encoder(x, lengths)
    first, state = model.prediction.begin(len(labels))
    predicted = torch.cat([first, model.prediction(labels.T, state)[0]])
    encoded, predicted = encoded.transpose(0, 1)[:, :, None], predicted.transpose(0, 1)[:, None]
    shape = (-1, encoded.shape[1], predicted.shape[2], -1)
    return model.joint(encoded.expand(shape), predicted.expand(shape)), frames


def utterances(job: tuple[int, int]) -> list[tuple[Wave, str]]:
    """(seed, count) -> so many, spoken by a new voice each."""
    seed, count = job
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        text = sentence(rng)
        made.append((speak(text, Voice.drawn(rng, quietest=_NOISIEST), rng), text))
    return made


class Corpus:
    """All utterances on the device, shortest first, so that a batch has about one length."""

    def __init__(self, spoken: Sequence[tuple[Wave, str]], device: str) -> None:
        ordered = sorted(spoken, key=lambda pair: len(pair[0]))
        waves = [torch.from_numpy(wave) for wave, _ in ordered]
        texts = [torch.tensor([ALPHABET.index(letter) for letter in text]) for _, text in ordered]
        self.lengths = torch.tensor([len(wave) for wave in waves], device=device)
        self.counts = torch.tensor([len(text) for text in texts], device=device)
        self.waves = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)
        self.labels = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True).to(device)
        self.longest, self.most = self.lengths.tolist(), torch.cummax(self.counts.cpu(), 0).values.tolist()

    def batch(self, first: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(waves [B, N], lengths, labels [B, U], counts) of utterances that follow each other."""
        chosen = slice(first, first + size)
        last = min(first + size, len(self.longest)) - 1
        waves, labels = self.waves[chosen, : self.longest[last]], self.labels[chosen, : self.most[last]]
        return waves, self.lengths[chosen], labels, self.counts[chosen]


def train(args: argparse.Namespace) -> dict[str, Any]:
    """The trained tensors by their own names, in 16 bits."""
    jobs = [(1000 + part + 100_000 * args.seed, args.utterances // 64) for part in range(64)]
    with multiprocessing.Pool(args.workers) as pool:
        spoken = [pair for part in pool.map(utterances, jobs) for pair in part]
    tensors = spread_channels(fitted(Corpus(spoken, args.device), args))
    return {name: value.astype(np.float16) for name, value in tensors.items()}


def fitted(corpus: Corpus, args: argparse.Namespace) -> dict[str, Any]:
    """The tensors in 32 bits."""
    torch.manual_seed(args.seed)
    model, featurizer = _initialised(args), Featurizer().to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=1e-3, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, args.steps))
    rng, progress = np.random.default_rng(args.seed), Progress(args.steps)
    for _ in range(args.steps):
        first = int(rng.integers(max(1, len(corpus.longest) - args.batch)))
        waves, lengths, labels, counts = corpus.batch(first, args.batch)
        with torch.no_grad():
            x, joined = featurizer(waves, lengths)
            x = masked(x, args.mask, rng)
        logits, frames = logits_of(model, x, joined, labels)
        loss = transducer_loss(logits, labels, frames, counts).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        scheduler.step()
        progress.step(loss.detach())
    return {name: value.cpu().numpy() for name, value in model.state_dict().items()}


def spread_channels(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same function, with channels of very different size in the joint, as large trained models have them.

    Each of the joint's channels is multiplied by a power of two between 1/8 and 8 before the ReLU and divided by it
    after, so every answer stays the same to the last bit. One int8 scale for a whole tensor now loses the small
    channels. A miniature is too robust without this to show the difference.
    """
    factor = 2.0 ** np.random.default_rng(0).integers(-3, 4, size=len(tensors["joint.net.0.bias"]))
    changes = {"joint.net.0.weight": factor[:, None], "joint.net.0.bias": factor, "joint.net.3.weight": 1 / factor}
    return {name: (value * changes.get(name, 1)).astype(np.float32) for name, value in tensors.items()}


def masked(x: Tensor, widest: int, rng: np.random.Generator) -> Tensor:
    """Features [T, B, 240] without two bands of up to so many mel filters each, so that none is relied upon (Park et
    al. 2019, SpecAugment)."""
    bands = torch.ones(MEL)
    for _ in range(2):
        width = int(rng.integers(widest + 1))
        first = int(rng.integers(MEL - width))
        bands[first : first + width] = 0
    return x * bands.repeat(SPLICE).to(x.device)


def _initialised(args: argparse.Namespace) -> Rnnt:
    """Forget gates open, as the official training has them."""
    model = Rnnt(CONFIG).to(args.device)
    for name, parameter in model.named_parameters():
        if ".bias_ih_" in name:
            hidden = len(parameter) // 4
            parameter.data[hidden : 2 * hidden] = 1.0
    return model


def _share(step: int, steps: int) -> float:
    """Of the learning rate: rising over the first 300 steps, then falling as half a cosine."""
    return min(1.0, (step + 1) / 300) * max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write, as the words of a command line say. Raises InputError as `train_and_write`."""
    parser = words(__doc__, seed=1, steps=2_569)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--mask", type=int, default=12, help="mel filters that a masked band has at most")
    parser.add_argument("--utterances", type=int, default=32_000)
    parser.add_argument("--workers", type=int, default=8)
    train_and_write(parser, arguments, train, WEIGHTS)


if __name__ == "__main__":
    main()
