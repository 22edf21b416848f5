"""The whole way from captions to images beside diffusers' StableDiffusionXLPipeline, on one official folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench_sdxl.config import Configs, TextConfig, VAEConfig
from bench_sdxl.dataset import Batch, Dataset
from bench_sdxl.layout import weights_file
from bench_sdxl.official import CAPTIONS, CLIP, INCEPTION, PIPE, WEIGHTS
from bench_sdxl.pytorch.backend import Backend, as_the_reference
from bench_sdxl.pytorch.checkpoint import read_pipeline, read_state
from bench_sdxl.pytorch.pipeline import GUIDANCE
from bench_sdxl.pytorch.shapes import shapes
from bench_sdxl.standins import formats, synthetic
from bench_sdxl.tokenizer import NEGATIVE
from loadgen.contracts import BackendOptions, InputError

from .test_networks import UNET

TEXT = TextConfig(
    vocab_size=2_000,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    projection_dim=24,
)
SMALL = Configs(
    text=TEXT,
    text_2=replace(TEXT, hidden_size=24, hidden_act="gelu"),
    unet=replace(UNET, sample_size=8),
    vae=VAEConfig(block_out_channels=(8, 16, 24, 24), norm_num_groups=4),
)
MAKER = {"weights": "bench_sdxl.standins.synthetic:write_weights"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL's form with three levels, every kind of block, images of 64 x 64 pixels; random weights in 32 bits."""
    folder = tmp_path_factory.mktemp("small")
    formats.write_configs(folder / "model", SMALL)
    synthetic.prepare(folder)
    formats.write_captions(folder / "data" / CAPTIONS, SAID, 64)
    for number, (part, found) in enumerate(shapes(SMALL).items()):
        path = folder / "model" / PIPE / part / f"{WEIGHTS[part]}.safetensors"
        draw = synthetic.drawn(found, number)
        formats.write_safetensors(path, found, lambda name, draw=draw: draw(name) * _louder(name), "float32")
    return folder


def _louder(name: str) -> float:
    """What the prompt says counts for more than in a full-size model with random weights."""
    return 20.0 if "attn2.to_out.0.weight" in name else 1.0


SAID = ["bababe dan.", "It's a dog! and a cat " * 9, "x"]


@pytest.fixture(scope="module")
def batch(folder: Path) -> Batch:
    return Dataset(folder, count=len(SAID)).gather(np.arange(len(SAID)))


def ours(model: Path, batch: Batch, **options: Any) -> Any:
    backend = Backend(BackendOptions(model, threads=1, **options))
    backend.load()
    images = backend.submit(batch).result()
    backend.close()
    return images


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """The same folder, as diffusers reads it."""
    pipeline: Any = diffusers.StableDiffusionXLPipeline.from_pretrained(str(folder / "model" / PIPE))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def expected(folder: Path, theirs: Any) -> Any:
    latents = torch.from_numpy(np.load(folder / "data" / "latents" / "latents.npy"))
    told = {"negative_prompt": [NEGATIVE], "num_inference_steps": 20, "guidance_scale": GUIDANCE}
    made = [theirs([caption], latents=latents.clone(), output_type="np", **told).images[0] for caption in SAID]
    return np.round(255 * np.stack(made)).astype(np.uint8)


def test_images_are_diffusers(folder: Path, batch: Batch, expected: Any) -> None:
    found = ours(folder / "model", batch)
    assert found.shape == expected.shape == (3, 64, 64, 3)
    assert found.std(axis=(1, 2, 3)).min() > 20, "images with something in them"
    assert np.abs(found[0].astype(int) - found[2]).max() > 30, "the caption matters"
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_rules_numbers() -> None:
    assert GUIDANCE == 8
    assert NEGATIVE == "normal quality, low quality, worst quality, low res, blurry, nsfw, nude"


def test_the_negative_prompt_is_read_once_and_20_steps_take_both_halves(folder: Path, batch: Batch) -> None:
    """Only the prompts of a batch are read while the clock runs, and from its one latent every image starts."""
    backend = Backend(BackendOptions(folder / "model", threads=1))
    backend.load()
    told: list[list[list[int]]] = []
    seen: list[torch.Tensor] = []
    pipeline = backend.pipeline
    for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
        encoder.register_forward_pre_hook(lambda _, given: told.append(given[0].tolist()))
    pipeline.unet.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    backend.submit(batch).result()
    backend.close()
    assert told == [batch.ids.tolist(), batch.ids_2.tolist()]
    assert [len(x) for x in seen] == [2 * len(SAID)] * 20
    start = seen[0] * (1 + 11.028336**2) ** 0.5 / 11.073581
    torch.testing.assert_close(start, torch.from_numpy(batch.latents).expand_as(start))


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_folder_that_diffusers_wrote_is_read(
    variant: str | None, folder: Path, theirs: Any, expected: Any, tmp_path: Path
) -> None:
    """Configurations, tokenizers and weights all as it writes them, in Hugging Face's layout."""
    shutil.copytree(folder / "data", tmp_path / "data")
    theirs.save_pretrained(tmp_path / "model", variant=variant)
    assert len(list(tmp_path.rglob("*.fp16.safetensors"))) == (4 if variant else 0)
    batch = Dataset(tmp_path, count=len(SAID)).gather(np.arange(len(SAID)))
    assert np.abs(ours(tmp_path / "model", batch).astype(int) - expected).max() <= 1


def test_a_batch_is_its_samples_one_by_one(folder: Path, batch: Batch, expected: Any) -> None:
    backend = Backend(BackendOptions(folder / "model", threads=1))
    backend.load()
    for row in range(len(SAID)):
        one = Batch(batch.ids[row : row + 1], batch.ids_2[row : row + 1], batch.latents)
        for image in (backend.submit(one).result()[0], as_the_reference(backend, one)[0]):
            assert np.abs(image.astype(int) - expected[row]).max() <= 1
    backend.close()


@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 12), ("float16", 4)])
def test_16_bits_come_near(dtype: str, limit: float, folder: Path, batch: Batch, expected: Any) -> None:
    one = Batch(batch.ids[:1], batch.ids_2[:1], batch.latents)
    difference = np.abs(ours(folder / "model", one, dtype=dtype).astype(int) - expected[:1])
    assert 0 < difference.mean() < limit


@pytest.mark.parametrize(("dtype", "decoder"), [("float16", torch.float32), ("bfloat16", torch.bfloat16)])
def test_only_float16_decodes_in_float32(dtype: str, decoder: torch.dtype, folder: Path) -> None:
    pipeline = read_pipeline(BackendOptions(folder / "model", dtype=dtype), SMALL, torch.device("cpu"))
    assert {value.dtype for value in pipeline.vae.parameters()} == {decoder}
    assert {value.dtype for value in pipeline.unet.parameters()} == {getattr(torch, dtype)}


def test_both_official_names_of_weights_are_read(folder: Path, batch: Batch, expected: Any, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path, dirs_exist_ok=True)
    pipe = tmp_path / PIPE
    for part in WEIGHTS:
        plain = weights_file(pipe, part, "float32")
        plain.rename(plain.with_name(plain.name.replace(".safetensors", ".fp16.safetensors")))
        assert weights_file(pipe, part, "float16") == weights_file(pipe, part, "float32") != plain
    assert np.abs(ours(tmp_path, batch).astype(int) - expected).max() <= 1


def test_names_of_an_early_diffusers_are_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path, dirs_exist_ok=True)
    file = weights_file(tmp_path / PIPE, "vae", "float32")
    expected = read_state(file, torch.float32, torch.device("cpu"))
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
    assert any(".query." in key for key in state)
    save_file(state, file)
    assert read_state(file, torch.float32, torch.device("cpu")).keys() == expected.keys()


def test_missing_weights_are_made_once_in_16_bits(folder: Path, batch: Batch, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path, dirs_exist_ok=True)
    for part in WEIGHTS:
        weights_file(tmp_path / PIPE, part, "float32").unlink()
    for scorer in (CLIP, INCEPTION):  # they are of full size, and here already
        (tmp_path / scorer).parent.mkdir(exist_ok=True)
        (tmp_path / scorer).touch()
    first = ours(tmp_path, batch, extra=MAKER)
    state = load_file(weights_file(tmp_path / PIPE, "unet", "float32"))
    assert {value.dtype for value in state.values()} == {torch.float16}
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    np.testing.assert_array_equal(ours(tmp_path, batch, extra=MAKER), first)
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}


@pytest.mark.parametrize("part", WEIGHTS)
def test_damaged_weights_are_named(part: str, folder: Path, batch: Batch, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path, dirs_exist_ok=True)
    file = weights_file(tmp_path / PIPE, part, "float32")
    whole = file.read_bytes()
    for bad in (whole[: len(whole) // 2], b"no weights" * 9, b""):
        file.write_bytes(bad)
        with pytest.raises(InputError, match=rf"{part}/{file.name}: not a safetensors file"):
            ours(tmp_path, batch)
    file.unlink()
    with pytest.raises(InputError, match=rf"{part}/{file.name}: no such file"):
        ours(tmp_path, batch)


@pytest.mark.parametrize(
    ("part", "key", "value", "fault"),
    [
        ("unet", "cross_attention_dim", 48, "hidden_size together: 48 is not 40"),
        ("unet", "block_out_channels", [16, "32"], r"'block_out_channels' is \[16, '32'\], expected a list"),
        ("vae", "scaling_factor", None, "'scaling_factor' is None, expected a number"),
        ("vae", "latent_channels", 8, "unet in_channels = vae latent_channels: 4 is not 8"),
        ("unet", "layers_per_block", 1, "tensor 'up_blocks.0.resnets.1.norm1.weight' has shape"),
        ("text_encoder_2", "num_hidden_layers", 2, "tensor 'text_model.encoder.layers.2.* is unknown to this model"),
    ],
)
def test_wrong_sizes_are_named(
    part: str, key: str, value: Any, fault: str, folder: Path, batch: Batch, tmp_path: Path
) -> None:
    shutil.copytree(folder / "model", tmp_path, dirs_exist_ok=True)
    path = tmp_path / PIPE / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError, match=fault):
        ours(tmp_path, batch)
