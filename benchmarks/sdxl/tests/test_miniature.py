"""The miniature is a real test of accuracy: trained, scored in FP32, hurt by what hurts a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_sdxl.benchmark import BENCHMARK, MINI
from bench_sdxl.dataset import Batch, Dataset
from bench_sdxl.pytorch.backend import Backend
from bench_sdxl.pytorch.euler import schedule
from bench_sdxl.pytorch.pipeline import Told
from bench_sdxl.standins import generate
from bench_sdxl.standins.miniature import CONFIGS, LENGTH, WEIGHTS, prepare, read_committed_statistics, read_weights
from loadgen.contracts import BackendOptions
from loadgen.harness.cli import invoke

from .conftest import LIMITS, REFERENCE, Images, Scored, made, met


def test_the_reference_is_the_score_in_float32(images: Images, scored: Scored) -> None:
    values = scored(images)
    assert values["CLIP_SCORE"] == pytest.approx(REFERENCE["CLIP_SCORE"], abs=0.05)
    assert values["FID_SCORE"] == pytest.approx(REFERENCE["FID_SCORE"], abs=0.02)
    assert met(values)


def test_bfloat16_meets_the_target(mini: Path, batch: Batch, scored: Scored) -> None:
    """float16 too, but a CPU takes a minute for it (see the README)."""
    backend = Backend(BackendOptions(mini / "model", threads=1, dtype="bfloat16"))
    backend.load()
    values = scored(made(backend, batch))
    backend.close()
    assert met(values)
    assert values != REFERENCE


@contextmanager
def rounded(network: Any, bits: int) -> Iterator[None]:
    """Within, each output channel's weights have so many bits."""
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    for value in network.state_dict().values():
        if value.dim() > 1:
            scale = value.abs().amax(dim=tuple(range(1, value.dim())), keepdim=True) / (2 ** (bits - 1) - 1)
            value.copy_((value / scale).round() * scale)
    yield
    network.load_state_dict(kept)


def test_4_bits_miss_it(backend: Backend, batch: Batch, scored: Scored) -> None:
    with torch.inference_mode(), rounded(backend.pipeline.unet, 4):
        assert not met(scored(made(backend, batch)))


def with_one_thing_otherwise(
    backend: Backend, batch: Batch, *, swapped: bool = False, steps: int = 20, guidance: float = 8.0
) -> Any:
    """Images that the miniature makes with one thing otherwise."""
    pipeline = backend.pipeline
    with torch.inference_mode():
        told = pipeline.tell(torch.from_numpy(batch.ids), torch.from_numpy(batch.ids_2))
        negative = backend.negative
        if swapped:
            half = CONFIGS.text.hidden_size
            told, negative = (Told(torch.roll(x.context, half, dims=-1), x.pooled) for x in (told, negative))
        plan = schedule(CONFIGS.scheduler, steps)
        latents = pipeline.denoise(told, negative, torch.from_numpy(batch.latents), plan, guidance)
        return pipeline.paint(latents).numpy()


def test_without_guidance_it_is_missed(backend: Backend, batch: Batch, scored: Scored) -> None:
    assert not met(scored(with_one_thing_otherwise(backend, batch, guidance=1.0)))


def test_swapped_text_encoders_miss_it(backend: Backend, batch: Batch, scored: Scored) -> None:
    values = scored(with_one_thing_otherwise(backend, batch, swapped=True))
    assert values["CLIP_SCORE"] < LIMITS["CLIP_SCORE"][0]


def test_one_caption_for_all_misses_it(backend: Backend, dataset: Dataset, batch: Batch, scored: Scored) -> None:
    one = dataset.gather(np.zeros(1, np.int64))
    image = made(backend, one)
    values = scored(np.repeat(image, dataset.total_count, axis=0))
    assert values["CLIP_SCORE"] < 20
    assert values["FID_SCORE"] > 10 * REFERENCE["FID_SCORE"]


def test_images_of_the_next_caption_miss_it_by_the_clip_score_alone(images: Images, scored: Scored) -> None:
    values = scored(np.roll(images, 1, axis=0))
    assert values["CLIP_SCORE"] < 20
    assert values["FID_SCORE"] == pytest.approx(REFERENCE["FID_SCORE"], abs=0.02)


@torch.inference_mode()
def test_a_wrong_latent_scale_misses_it(
    backend: Backend, denoised: tuple[Images, torch.Tensor], scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of earlier Stable Diffusion models."""
    pipeline, (images, latents) = backend.pipeline, denoised
    assert np.array_equal(pipeline.paint(latents[:8]).numpy(), images[:8])
    monkeypatch.setattr(pipeline, "configs", replace(CONFIGS, vae=replace(CONFIGS.vae, scaling_factor=0.18215)))
    assert not met(scored(pipeline.paint(latents).numpy()))


def test_red_and_blue_exchanged_miss_it(images: Images, scored: Scored) -> None:
    assert not met(scored(np.ascontiguousarray(images[..., ::-1])))


def test_both_limits_are_two_sided() -> None:
    for name, (low, high) in LIMITS.items():
        assert low < REFERENCE[name] < high
        inside = dict(REFERENCE)
        assert met(inside)
        assert not met(inside | {name: low * 0.999})
        assert not met(inside | {name: high * 1.001})


def test_real_drawings_score_higher_than_made_ones(scored: Scored) -> None:
    specs = generate.chosen(MINI.samples)
    values = scored(generate.draw(specs, np.random.default_rng(5)))
    assert values["CLIP_SCORE"] > REFERENCE["CLIP_SCORE"]
    assert values["FID_SCORE"] < REFERENCE["FID_SCORE"]


def test_captions_are_sentences_of_the_grammar(dataset: Dataset) -> None:
    every = {generate.caption(spec) for spec in generate.every_spec()}
    assert len(every) == 2160
    assert set(dataset.captions) <= every
    assert len(set(dataset.captions)) == dataset.total_count


def test_drawings_show_what_captions_say() -> None:
    rng = np.random.default_rng(1)
    red_left, blue_right = (0, 0, 1, 3, 0), (1, 2, 1, 5, 2)
    drawn = generate.draw(np.array([red_left, blue_right]), rng).astype(int)
    assert generate.caption(red_left) == "a small red square at the left on a white background"
    assert generate.caption(blue_right) == "a large blue square at the right on a black background"
    assert drawn[0, 16, 8, 0] - drawn[0, 16, 8, 2] > 100
    assert drawn[1, 16, 24, 2] - drawn[1, 16, 24, 0] > 100
    assert drawn[0, 0, 31].min() > 200
    assert drawn[1, 0, 0].max() < 60


def test_the_weights_are_small_and_whole() -> None:
    assert WEIGHTS.stat().st_size < 2_000_000
    weights = read_weights()
    assert set(weights) == {"text_encoder", "text_encoder_2", "unet", "vae", "clip", "inception"}
    assert all(np.isfinite(value).all() for part in weights.values() for value in part.values())
    assert weights["text_encoder"]["text_model.embeddings.position_embedding.weight"].shape[0] == LENGTH
    covariance = read_committed_statistics().covariance
    assert (covariance == covariance.T).all()
    assert np.linalg.eigvalsh(covariance).min() > -1e-6


def test_prepare_makes_the_files_once(mini: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in mini.rglob("*") if path.is_file()}
    prepare(mini)
    assert {path: path.stat().st_mtime_ns for path in mini.rglob("*") if path.is_file()} == before


def test_the_miniature_can_be_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ["--steps", "2", "--batch", "8", "--each", "1", "--scored", "4", "--device", "cpu"]
    assert invoke(BENCHMARK, ["train-mini", "--output", str(tmp_path / "w.npz"), *few]) == 0
    said = capfd.readouterr().out
    assert "standins/weights.npz is the file that the miniature uses" in said
    assert "made with guidance 8 in 20 steps: CLIP score" in said
    with np.load(tmp_path / "w.npz") as made_now, np.load(WEIGHTS) as committed:
        assert {n: made_now[n].shape for n in made_now} == {n: committed[n].shape for n in committed}
    assert read_weights(tmp_path / "w.npz").keys() == read_weights().keys()
