"""Trains the miniature: `python -m bench_sdxl train-mini --output weights.npz`.

Four trainings, one after another, on drawings of the grammar in `generate.py`: the scorers (CLIP, then the feature
network, an Inception-v3 of a sixteenth of the width), the VAE, and the U-Net together with both text encoders.
0.92 M parameters, rounded to 16 bits; 3,000 steps of 96 latents and 3,000 of the others, 27 minutes on one CPU core
that others used too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench_sdxl.dataset import Statistics
from bench_sdxl.pytorch.euler import noise_levels, schedule
from bench_sdxl.pytorch.pipeline import GUIDANCE, Pipeline
from bench_sdxl.pytorch.vae import VAE
from bench_sdxl.scorers.clip import CLIP, normalised
from bench_sdxl.scorers.inception import Inception
from bench_sdxl.scorers.judge import Judge
from bench_sdxl.standins import SIZES
from bench_sdxl.standins.generate import COUNTS, caption, chosen, draw, every_spec, latents
from bench_sdxl.standins.miniature import (
    CLIP_SHAPES,
    CONFIGS,
    LENGTH,
    WEIGHTS,
    features_of,
    pack,
    read_weights,
    write_tokenizers,
)
from bench_sdxl.tokenizer import NEGATIVE, Tokenizer
from loadgen.harness.standins.training import Progress, train_and_write, words

_DROPPED = 0.1
"""Share of prompts that are the negative one in training, as classifier-free guidance wants."""


class World:
    """Drawings of every sentence, some of each, and the sentences' tokens, on the device."""

    def __init__(self, each: int, seed: int, device: str) -> None:
        specs = every_spec()
        self.rng = np.random.default_rng([7, seed])
        drawn = np.stack([draw(specs, self.rng) for _ in range(each)], axis=1)
        self.images = torch.from_numpy(drawn).to(device)
        self.specs = torch.from_numpy(specs).to(device)
        with TemporaryDirectory() as folder:
            write_tokenizers(Path(folder))
            tokenizers = [Tokenizer(Path(folder) / name) for name in ("tokenizer", "tokenizer_2")]
        self.tokenizer = tokenizers[0]
        captions = [*(caption(spec) for spec in specs), NEGATIVE]
        self.ids, self.ids_2 = (
            torch.tensor([one.row(text, LENGTH) for text in captions], device=device) for one in tokenizers
        )
        pads = [tokenizers[1].row(text, LENGTH) for text in captions]  # which pads with 0, as CLIP's own
        self.clip_ids = torch.tensor(pads, device=device)
        self.device = device

    def draws(self, batch: int) -> tuple[Tensor, Tensor]:
        """Numbers of different sentences, and a drawing uint8 [H, W, 3] of each."""
        count, each = self.images.shape[:2]
        rows = torch.randperm(count, device=self.device)[:batch]
        return rows, self.images[rows, torch.randint(each, (len(rows),), device=self.device)]


def fit(name: str, parts: Sequence[nn.Module], steps: int, rate: float, loss: Callable[[], Tensor]) -> None:
    """AdamW with one cosine cycle; afterwards the parts hold the running average of their last steps."""
    print(f"training {name}", flush=True)
    parameters: list[Tensor] = [p for part in parts for p in part.parameters()]
    averages = [p.detach().clone() for p in parameters]
    fused = parameters[0].is_cuda
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-3, betas=(0.9, 0.98), fused=fused)
    warm = max(1, min(200, steps // 10))

    def share(step: int) -> float:
        return min(1.0, (step + 1) / warm) * max(0.01, 0.5 * (1 + math.cos(math.pi * step / steps)))

    cycle = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    progress = Progress(steps)
    for step in range(steps):
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        cycle.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, max(0.004, 1 / (step + 1)))
        progress.step(value.detach())
    with torch.no_grad():
        for parameter, average in zip(parameters, averages, strict=True):
            parameter.copy_(average.half().float())  # as it will be stored


def train_clip(world: World, steps: int, batch: int) -> CLIP:
    """Contrastive: each drawing finds its sentence among the batch's, and each sentence its drawing."""
    model = CLIP(CLIP_SHAPES)
    for name, parameter in model.named_parameters():
        _initialise(name, parameter)
    model.to(world.device)

    def loss() -> Tensor:
        rows, images = world.draws(batch)
        seen, read = model.encode_images(normalised(images)), model.encode_texts(world.clip_ids[rows])
        logits = model.logit_scale.exp().clamp(max=100) * seen @ read.T
        truth = torch.arange(len(rows), device=world.device)
        return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2

    fit("CLIP", [model], steps, 2e-3, loss)
    return model.eval()


def _initialise(name: str, parameter: nn.Parameter) -> None:
    with torch.no_grad():
        if name == "logit_scale":
            parameter.fill_(math.log(10))
        elif "ln_" in name:
            parameter.fill_(float(name.endswith("weight")))
        elif parameter.dim() == 1:
            parameter.normal_(std=0.02)
        elif "embedding" in name:
            parameter.normal_(std=0.1)
        else:
            parameter.normal_(std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.02)


def train_features(world: World, steps: int, batch: int) -> Inception:
    """It tells size, colour, shape, place and background apart; what it tells them by is the features."""
    torch.manual_seed(int(world.rng.integers(1 << 30)))
    model = Inception(first=2, classes=sum(COUNTS)).to(world.device)

    def loss() -> Tensor:
        rows, images = world.draws(batch)
        pixels = images.permute(0, 3, 1, 2).float() / 255
        answers = model.fc(model(pixels, SIZES["feature_side"])).split(COUNTS, dim=1)
        truths = world.specs[rows].T
        return torch.stack([F.cross_entropy(a, t) for a, t in zip(answers, truths, strict=True)]).sum()

    fit("features", [model], steps, 3e-3, loss)
    with torch.no_grad():  # the averaged weights want averaged statistics
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()
                part.momentum = None
        for _ in range(20):
            _, images = world.draws(512)
            model(images.permute(0, 3, 1, 2).float() / 255, SIZES["feature_side"])
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.copy_(buffer.half().float())
    return model.eval()


def train_vae(world: World, steps: int, batch: int) -> VAE:
    """Drawings through 4 x 8 x 8 numbers and back; then its latents get the deviation that SDXL's scaling wants."""
    vae = VAE(CONFIGS.vae, encodes=True).to(world.device)

    def loss() -> Tensor:
        images = _signed(world.draws(batch)[1])
        mean, log_variance = vae.encode(images)
        log_variance = log_variance.clamp(-12, 4)
        noisy = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        again = vae.decode(noisy)
        return F.mse_loss(again, images) + 0.3 * F.l1_loss(again, images) + 1e-4 * divergence

    fit("VAE", [vae], steps, 3e-3, loss)
    with torch.no_grad():
        deviation = vae.encode(_signed(world.draws(512)[1]))[0].std()
        factor = 1 / (CONFIGS.vae.scaling_factor * float(deviation))
        half = CONFIGS.vae.latent_channels
        bias = vae.quant_conv.bias
        assert bias is not None
        vae.quant_conv.weight[:half] *= factor
        bias[:half] *= factor
        bias[half:] += 2 * math.log(factor)
        vae.post_quant_conv.weight /= factor
        for parameter in vae.parameters():
            parameter.copy_(parameter.half().float())
    return vae.eval()


def _signed(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def train_diffusion(world: World, pipeline: Pipeline, steps: int, batch: int) -> None:
    """The noise in noisy latents is found, by U-Net and text encoders together."""
    levels = torch.from_numpy(noise_levels(CONFIGS.scheduler)).float().to(world.device)
    with torch.no_grad():
        every = torch.stack([_latents(pipeline, world.images[:, j]) for j in range(world.images.shape[1])], dim=1)
    sizes = torch.tensor([CONFIGS.side, CONFIGS.side, 0, 0, CONFIGS.side, CONFIGS.side], device=world.device).float()
    count, each = every.shape[:2]

    def loss() -> Tensor:
        rows = torch.randint(count, (batch,), device=world.device)
        clean = every[rows, torch.randint(each, (batch,), device=world.device)]
        said = torch.where(torch.rand(batch, device=world.device) < _DROPPED, count, rows)  # the last is NEGATIVE
        told = pipeline.tell(world.ids[said], world.ids_2[said])
        times = torch.randint(len(levels), (batch,), device=world.device)
        left = levels[times][:, None, None, None]
        noise = torch.randn_like(clean)
        noisy = left.sqrt() * clean + (1 - left).sqrt() * noise
        found = pipeline.unet(noisy, times.float(), told.context, pipeline.unet.added(told.pooled, sizes))
        return F.mse_loss(found, noise)

    parts = [pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2]
    fit("diffusion", [part.train() for part in parts], steps, 2e-3, loss)
    pipeline.eval()


def _latents(pipeline: Pipeline, images: Tensor) -> Tensor:
    return pipeline.vae.encode(_signed(images))[0] * CONFIGS.vae.scaling_factor


def train(args: argparse.Namespace) -> dict[str, Any]:
    """All weights, packed, and the statistics of real drawings."""
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    world = World(args.each, args.seed, args.device)
    share = args.steps / 3000
    clip, features = read_scorers(args) if args.scorers else train_scorers(world, share, args.batch)
    pipeline = Pipeline(CONFIGS, encodes=True).to(args.device)
    pipeline.vae = train_vae(world, max(2, round(1500 * share)), args.batch // 2)
    train_diffusion(world, pipeline, args.steps, args.batch)
    statistics = features_of(lambda pixels: features(pixels, SIZES["feature_side"]), world.images[:, :3].flatten(0, 1))
    with torch.inference_mode():
        report(world, pipeline, clip, features, statistics, args.scored)
    return pack(pipeline, clip, features, statistics)


def train_scorers(world: World, share: float, batch: int) -> tuple[CLIP, Inception]:
    """share: of their usual steps."""
    clip = train_clip(world, max(2, round(937.5 * share)), batch)
    return clip, train_features(world, max(2, round(562.5 * share)), batch // 2)


def read_scorers(args: argparse.Namespace) -> tuple[CLIP, Inception]:
    """Those of a file, so that the scores of two trainings can be compared."""
    weights = read_weights(args.scorers)
    clip, features = CLIP(CLIP_SHAPES), Inception(2, sum(COUNTS))
    clip.load_state_dict({name: torch.from_numpy(value) for name, value in weights["clip"].items()})
    found = {name: torch.from_numpy(value) for name, value in weights["inception"].items()}
    features.load_state_dict(found, strict=False)  # without its counters of steps
    return clip.eval().to(args.device), features.eval().to(args.device)


def report(
    world: World, pipeline: Pipeline, clip: CLIP, features: Inception, statistics: Statistics, count: int
) -> None:
    """Prints CLIP score and FID of drawings, of drawings through the VAE, and of images made in several ways."""
    specs = chosen(count)
    captions = [caption(spec) for spec in specs]
    real = draw(specs, np.random.default_rng(5))
    told = pipeline.tell(*(_rows(world, ids, specs) for ids in (world.ids, world.ids_2)))
    negative = pipeline.tell(world.ids[-1:], world.ids_2[-1:])
    start = torch.from_numpy(latents())

    def judged(name: str, images: Any, texts: Sequence[str] = captions) -> None:
        judge = Judge(clip, features, world.tokenizer, statistics, SIZES["feature_side"])
        judge.add(list(np.asarray(images)), texts)
        print(f"{name}: CLIP score {judge.clip_score:.3f}, FID {judge.fid:.3f}", flush=True)

    judged("real drawings", real)
    judged("real drawings, captions of the next", real, [*captions[1:], captions[0]])
    through = pipeline.paint(_latents(pipeline, torch.from_numpy(real).to(world.device)))
    judged("through the VAE", through.cpu())
    for guidance, steps in ((GUIDANCE, 20), (3.0, 20), (1.0, 20), (GUIDANCE, 10)):
        made = pipeline.denoise(told, negative, start, schedule(CONFIGS.scheduler, steps), guidance)
        judged(f"made with guidance {guidance:g} in {steps} steps", pipeline.paint(made).cpu())
    with int4(pipeline.unet):
        made = pipeline.denoise(told, negative, start, schedule(CONFIGS.scheduler))
        judged("made with the U-Net in 4 bits", pipeline.paint(made).cpu())


def _rows(world: World, ids: Tensor, specs: Any) -> Tensor:
    numbers = np.ravel_multi_index(tuple(specs.T), COUNTS)
    return ids[torch.from_numpy(numbers).to(ids.device)]


@contextmanager
def int4(model: nn.Module) -> Iterator[None]:
    """Within, each output channel's weights have 15 values only."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    for value in model.state_dict().values():
        if value.dim() > 1:
            scale = value.abs().amax(dim=tuple(range(1, value.dim())), keepdim=True) / 7
            value.copy_((value / scale).round() * scale)
    yield
    model.load_state_dict(kept)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write, as the words of a command line say. Raises InputError as `train_and_write`."""
    parser = words(__doc__, seed=1, steps=3_000)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--each", type=int, default=3, help="drawings of each sentence")
    parser.add_argument("--scored", type=int, default=SIZES["count"], help="images of each line of the report")
    parser.add_argument("--scorers", type=Path, help="take both scorers from this file, and train the others")
    train_and_write(parser, arguments, train, WEIGHTS)


if __name__ == "__main__":
    main()
