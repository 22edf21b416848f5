"""The scorers beside networks that we did not write: in full size by recorded values, small ones every day."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
import transformers

from bench_sdxl.pytorch.shapes import inception_shapes
from bench_sdxl.scorers.clip import CLIP, normalised, read_clip, resized
from bench_sdxl.scorers.frechet import Moments, distance
from bench_sdxl.scorers.inception import Inception, read_inception
from bench_sdxl.standins.formats import clip_shapes, write_clip, write_inception
from bench_sdxl.standins.synthetic import drawn
from loadgen.contracts import InputError

from . import make_golden

GOLDEN = json.loads(make_golden.FILE.read_text())
SMALL = clip_shapes(width=128, text_width=128, size=24, layers=2, patch=8, grid=4, context=12, pieces=60)


@torch.inference_mode()
def test_full_size_clip_is_open_clips() -> None:
    golden = GOLDEN["clip"]
    with torch.device("meta"):
        model = CLIP(make_golden.CLIP_SHAPES)
    state = {name: torch.from_numpy(value) for name, value in make_golden.clip_weights().items()}
    model.load_state_dict(state, strict=True, assign=True)
    assert (model.side, model.context, model.vocabulary) == (224, 77, 49408)
    pixels = torch.cat([normalised(resized([image], model.side)) for image in make_golden.images()])
    np.testing.assert_allclose(pixels[:, :, ::37, ::41].flatten()[:200], golden["pixels"], atol=1e-6)
    seen, read = model.encode_images(pixels), model.encode_texts(torch.tensor(golden["ids"]))
    np.testing.assert_allclose(seen[:, : make_golden.SHOWN], golden["seen"], atol=2e-6)
    np.testing.assert_allclose(read[:, : make_golden.SHOWN], golden["read"], atol=2e-6)
    np.testing.assert_allclose(100 * seen @ read.T, golden["similarity"], atol=2e-4)
    assert np.ptp(golden["similarity"]) > 0.5, "images and captions differ"


@torch.inference_mode()
def test_full_size_inception_is_pytorch_fids(tmp_path: Path) -> None:
    golden = GOLDEN["inception"]
    write_inception(tmp_path / "inception.pth", make_golden.inception_weights(inception_shapes()))
    model = read_inception(tmp_path / "inception.pth", "cpu")
    assert model.fc.in_features == 2048
    for image, expected, mean in zip(make_golden.images(), golden["features"], golden["means"], strict=True):
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        found = model(pixels)[0]
        assert float(found.mean()) == pytest.approx(mean, rel=1e-4)
        shown = found[:: len(found) // make_golden.SHOWN][: make_golden.SHOWN]
        np.testing.assert_allclose(shown, expected, rtol=1e-3, atol=1e-4 * mean)
        assert np.std(expected) > 0.1 * mean, "features differ"


@torch.inference_mode()
def test_clip_is_transformers() -> None:
    draw = drawn(SMALL, 3)
    state = {name: torch.from_numpy(draw(name)) for name in SMALL}
    ours = CLIP(SMALL)
    ours.load_state_dict(state)
    shared = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2}
    shared |= {"hidden_act": "quick_gelu", "projection_dim": 24}
    text = {**shared, "vocab_size": 60, "max_position_embeddings": 12, "eos_token_id": 2}
    vision = {**shared, "image_size": 32, "patch_size": 8}
    config: Any = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    kind: Any = transformers.CLIPModel
    theirs = kind(config).eval()
    theirs.load_state_dict(_as_transformers(state), strict=False)
    ids = torch.randint(1, 50, (3, 12))
    ids[:, 0], ids[0, 5:], ids[1, 11], ids[2, 8:] = 58, 59, 59, 59
    pixels = torch.randn(3, 3, 32, 32)
    found = theirs(input_ids=ids, pixel_values=pixels)
    torch.testing.assert_close(ours.encode_images(pixels), found.image_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.encode_texts(ids), found.text_embeds, rtol=0, atol=1e-5)


def _as_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """OpenAI's names to transformers'."""
    made = {
        "logit_scale": state["logit_scale"],
        "text_projection.weight": state["text_projection"].T,
        "visual_projection.weight": state["visual.proj"].T,
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
    }
    words = {"ln_final": "text_model.final_layer_norm", "visual.ln_pre": "vision_model.pre_layrnorm"}
    words |= {
        "visual.ln_post": "vision_model.post_layernorm",
        "visual.transformer.resblocks": "vision_model.encoder.layers",
    }
    words |= {"transformer.resblocks": "text_model.encoder.layers"}
    inner = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2"}
    inner |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for name, value in state.items():
        prefix = next((word for word in words if name.startswith(word)), None)
        if prefix is None:
            continue
        renamed = words[prefix] + name[len(prefix) :]
        if "attn.in_proj" in renamed:
            stem, kind = renamed.split("attn.in_proj_")
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                made[f"{stem}self_attn.{part}_proj.{kind}"] = rows
            continue
        for old, new in inner.items():
            renamed = renamed.replace(f".{old}.", f".{new}.")
        made[renamed] = value
    return made


def test_moments_are_numpys_however_the_batches_are_cut() -> None:
    values = np.random.default_rng(1).normal(1e4, 1, (70, 5)).astype(np.float32)
    moments = Moments(5)
    for part in np.split(values, [1, 9, 10, 60]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, values.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(values.astype(np.float64), rowvar=False), rtol=1e-7)


def test_the_distance_is_that_of_scipys_root() -> None:
    many, more = make_golden.features(300, 32, 3), make_golden.features(400, 32, 4)
    (mean_1, covariance_1), (mean_2, covariance_2) = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in (many, more))
    root = scipy.linalg.sqrtm(covariance_1 @ covariance_2).real
    expected = ((mean_1 - mean_2) ** 2).sum() + np.trace(covariance_1 + covariance_2 - 2 * root)
    assert distance(mean_1, covariance_1, mean_2, covariance_2) == pytest.approx(expected, rel=1e-9)
    assert distance(mean_1, covariance_1, mean_1, covariance_1) == pytest.approx(0, abs=1e-9)


def test_the_distance_is_pytorch_fids_with_too_few_samples() -> None:
    few, many = make_golden.features(40, 64, 1), make_golden.features(500, 64, 2)
    moments = []
    for part in (few, many):
        moments.append(Moments(64))
        moments[-1].add(part)
    found = distance(moments[0].mean, moments[0].covariance, moments[1].mean, moments[1].covariance)
    assert found == pytest.approx(GOLDEN["inception"]["fid"], rel=1e-5)


def test_damaged_scorers_are_named(tmp_path: Path) -> None:
    draw = drawn(SMALL, 3)
    tensors = {name: draw(name) for name in SMALL}
    for name, write, read in (("clip.pt", write_clip, read_clip), ("inception.pth", write_inception, read_inception)):
        path = tmp_path / name
        write(path, {part: value for part, value in tensors.items() if part != "visual.proj"})
        with pytest.raises(InputError, match=name):
            read(path, "cpu")
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(InputError, match=name):
            read(path, "cpu")
        path.unlink()
        with pytest.raises(InputError, match=rf"{name}: no such file"):
            read(path, "cpu")


def test_a_clip_written_in_openais_form_is_read_back(tmp_path: Path) -> None:
    draw = drawn(SMALL, 3)
    write_clip(tmp_path / "clip.pt", {name: draw(name) for name in SMALL})
    state = read_clip(tmp_path / "clip.pt", "cpu").state_dict()
    assert all(np.allclose(state[name], draw_again, atol=1e-2) for name, draw_again in _again())


def _again() -> list[tuple[str, Any]]:
    draw = drawn(SMALL, 3)
    return [(name, draw(name)) for name in SMALL]


def test_a_narrow_inception_has_all_blocks_in_proportion() -> None:
    found = {name: tuple(value.shape) for name, value in Inception(2, 26).state_dict().items()}
    for name, shape in inception_shapes().items():
        if name.startswith("fc."):
            continue
        expected = tuple(size if at > 1 or (at == 1 and size == 3) else size // 16 for at, size in enumerate(shape))
        assert found[name] == expected, name
