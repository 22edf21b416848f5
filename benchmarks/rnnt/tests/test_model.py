"""The architecture: official names and sizes, pairs of frames, and what a batch may not change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bench_rnnt.config import RnntConfig, config_of, weight_shapes
from bench_rnnt.model import Rnnt
from bench_rnnt.official import FILTERS, WINDOW, official_names, own_names
from loadgen.contracts import InputError

SMALL = RnntConfig(10, 2, 3, 6, 2, 8)


def lstm(name: str, inputs: int, hidden: int, layers: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.{part}_l{n}": shape
        for n in range(layers)
        for part, shape in {
            "weight_ih": (4 * hidden, hidden if n else inputs),
            "weight_hh": (4 * hidden, hidden),
            "bias_ih": (4 * hidden,),
            "bias_hh": (4 * hidden,),
        }.items()
    }


def test_names_and_sizes_are_the_official_checkpoints() -> None:
    """As they stand in the published file."""
    published = {
        "audio_preprocessor.featurizer.fb": (1, 80, 257),
        "audio_preprocessor.featurizer.window": (320,),
        **lstm("encoder.pre_rnn.lstm", 240, 1024, 2),
        **lstm("encoder.post_rnn.lstm", 2048, 1024, 3),
        "prediction.embed.weight": (28, 320),
        **lstm("prediction.dec_rnn.lstm", 320, 320, 2),
        "joint_net.0.weight": (512, 1344),
        "joint_net.0.bias": (512,),
        "joint_net.3.weight": (29, 512),
        "joint_net.3.bias": (29,),
    }
    with torch.device("meta"):
        state = Rnnt(RnntConfig()).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == own_names(published)
    assert own_names(published) == weight_shapes(RnntConfig())
    assert {*official_names(own_names(published)), FILTERS, WINDOW} == set(published)
    assert sum(value.numel() for value in state.values()) == 45_323_037
    assert config_of(own_names(published), "x") == RnntConfig()


def test_sizes_follow_from_shapes() -> None:
    assert config_of(weight_shapes(SMALL), "x") == SMALL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joint.net.0.bias": None}, r"x: tensor 'joint.net.0.bias' \[8\] is missing"),
        ({"joint.net.3.weight": (28, 8)}, r"shape \[28, 8\], expected \[29, 8\]"),
        ({"encoder.post_rnn.lstm.weight_ih_l0": (40, 10)}, r"shape \[40, 10\], expected \[40, 20\]"),
        ({"encoder.more": (1,)}, "'encoder.more' is unknown"),
        ({"joint.net.0.weight": None}, "x: no matrix 'joint.net.0.weight' in it"),
        ({"prediction.dec_rnn.lstm.weight_hh_l0": (6,)}, "x: no matrix 'prediction.dec_rnn.lstm.weight_hh_l0' in it"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: dict[str, tuple[int, ...] | None], message: str) -> None:
    shapes = {name: shape for name, shape in (weight_shapes(SMALL) | change).items() if shape is not None}
    with pytest.raises(InputError, match=message):
        config_of(shapes, "x")


def test_two_frames_become_one(random_model: Callable[..., Rnnt]) -> None:
    stacked = random_model(0, SMALL).encoder.stacked(torch.arange(6.0).reshape(3, 1, 2))
    assert stacked.tolist() == [[[0, 1, 2, 3]], [[4, 5, 0, 0]]]


@torch.inference_mode()
def test_a_batch_changes_nothing(random_model: Callable[..., Rnnt]) -> None:
    """Odd lengths above all: the frame that fills up the last pair is zero, not what the batch has there."""
    model = random_model(0, SMALL)
    x, lengths = torch.randn(9, 4, 240, dtype=torch.double), torch.tensor([9, 5, 4, 1])
    together, halves = model.encoder(x, lengths)
    assert halves.tolist() == [5, 3, 2, 1]
    for row, length in enumerate(lengths.tolist()):
        alone, half = model.encoder(x[:length, row, None], lengths[row, None])
        assert torch.allclose(alone[:, 0], together[: int(half), row], atol=1e-12)
