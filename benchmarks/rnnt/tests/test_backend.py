"""The backend: official files in, labels out, in each number format; what it cannot read or do is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_rnnt.config import RnntConfig, weight_shapes
from bench_rnnt.dataset import Dataset, silence
from bench_rnnt.official import CHECKPOINT
from bench_rnnt.pytorch.backend import Backend, read_model, sequential
from bench_rnnt.standins.formats import write_checkpoint
from loadgen.contracts import BackendOptions, InputError

SMALL = RnntConfig(10, 2, 3, 6, 2, 8)


@pytest.fixture
def tensors() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in weight_shapes(SMALL).items()}


def loaded(model: Path, **options: Any) -> Backend:
    backend = Backend(BackendOptions(model, threads=1, **options))
    backend.load()
    return backend


@pytest.fixture(scope="module")
def backend(mini: Path) -> Backend:
    return loaded(mini / "model", max_batch=4)


def test_the_checkpoint_is_as_the_official_one(tensors: dict[str, Any], tmp_path: Path) -> None:
    write_checkpoint(tmp_path / CHECKPOINT, tensors)
    checkpoint = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state = checkpoint["state_dict"]
    assert state["audio_preprocessor.featurizer.fb"].shape == (1, 80, 257)
    assert state["audio_preprocessor.featurizer.window"].shape == (320,)
    assert state["joint_net.3.weight"].shape == (29, 8)
    assert {value.dtype for value in state.values()} == {torch.float32}
    found = read_model(tmp_path / CHECKPOINT).state_dict()
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in tensors.items()}


def _bare(checkpoint: dict[str, Any]) -> Any:
    return checkpoint["state_dict"]


def _drop(checkpoint: dict[str, Any]) -> Any:
    del checkpoint["state_dict"]["joint_net.3.bias"]
    return checkpoint


def _reshape(checkpoint: dict[str, Any]) -> Any:
    checkpoint["state_dict"]["prediction.embed.weight"] = torch.zeros(29, 6)
    return checkpoint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_bare, "no 'state_dict' in it"),
        (_drop, r"tensor 'joint.net.3.bias' \[29\] is missing"),
        (_reshape, r"'prediction.embed.weight' has shape \[29, 6\], expected \[28, 6\]"),
    ],
)
def test_another_checkpoint_is_named(
    change: Callable[[dict[str, Any]], Any], message: str, tensors: dict[str, Any], tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / CHECKPOINT, tensors)
    torch.save(change(torch.load(tmp_path / CHECKPOINT, weights_only=True)), tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match=message) as caught:
        read_model(tmp_path / CHECKPOINT)
    assert str(tmp_path / CHECKPOINT) in str(caught.value)


def test_tensors_that_do_not_fit_are_not_written(tensors: dict[str, Any], tmp_path: Path) -> None:
    del tensors["encoder.pre_rnn.lstm.bias_ih_l1"]
    with pytest.raises(InputError, match=r"tensors to write: tensor 'encoder\.pre_rnn\.lstm\.bias_ih_l1'"):
        write_checkpoint(tmp_path / CHECKPOINT, tensors)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rnnt\.pt: no such file"):
        loaded(tmp_path)


def test_a_batch_answers_as_each_utterance_alone(backend: Backend, mini_dataset: Dataset) -> None:
    """And as the reference decodes, one label at a time."""
    indices = np.array([3, 200, 77, 31])
    together = [labels.tolist() for labels in backend.submit(mini_dataset.gather(indices)).result()]
    alone = [backend.submit(mini_dataset.gather(indices[n : n + 1])).result()[0].tolist() for n in range(4)]
    assert together == alone == sequential(backend, mini_dataset.gather(indices))
    assert all(len(labels) > 8 for labels in together)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_number_formats_hear_nearly_the_same(
    dtype: str, backend: Backend, mini: Path, mini_dataset: Dataset
) -> None:
    batch = mini_dataset.gather(np.arange(0, 256, 16))
    other = loaded(mini / "model", dtype=dtype)
    exact, found = ([labels.tolist() for labels in b.submit(batch).result()] for b in (backend, other))
    same = sum(a == b for a, b in zip(exact, found, strict=True))
    assert same >= 10, f"{same} of {len(exact)} utterances"


def test_silence_is_answered(backend: Backend) -> None:
    (labels,) = backend.submit(silence(1, 481)).result()
    assert labels.dtype == np.int8
    assert len(labels) < 31


def test_an_unknown_device_or_dtype_is_an_error(mini: Path) -> None:
    with pytest.raises(InputError, match="device 'tpu': use cpu"):
        loaded(mini / "model", devices=("tpu",))
    with pytest.raises(InputError, match="dtype 'int8': use one of float32, bfloat16, float16"):
        loaded(mini / "model", dtype="int8")


def test_after_close_nothing_is_held(mini: Path) -> None:
    backend = loaded(mini / "model")
    backend.close()
    assert not hasattr(backend, "model")
    Backend(BackendOptions(mini / "model")).close()
