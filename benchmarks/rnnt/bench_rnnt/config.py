"""The sizes of an RNN-T, read off its tensors' shapes: the official checkpoint comes without a file of sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from bench_rnnt.features import SPLICED
from bench_rnnt.official import ALPHABET
from loadgen.contracts import InputError
from loadgen.harness.runtimes.checkpoints import check_shapes

Shapes: TypeAlias = "Mapping[str, tuple[int, ...]]"
"""By the names of `model.Rnnt`."""


@dataclass(frozen=True)
class RnntConfig:
    """Defaults: the benchmark's model (45.3 M parameters)."""

    encoder_hidden: int = 1024
    pre_layers: int = 2
    """LSTM layers of the encoder on frames of 30 ms."""
    post_layers: int = 3
    """And on pairs of them."""
    prediction_hidden: int = 320
    prediction_layers: int = 2
    joint_hidden: int = 512

    stack = 2
    """Frames that the encoder joins to one between its two parts."""


def weight_shapes(config: RnntConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of `model.Rnnt`."""
    width, inner = config.encoder_hidden, config.prediction_hidden
    return {
        **_lstm("encoder.pre_rnn.lstm", SPLICED, width, config.pre_layers),
        **_lstm("encoder.post_rnn.lstm", config.stack * width, width, config.post_layers),
        "prediction.embed.weight": (len(ALPHABET), inner),
        **_lstm("prediction.dec_rnn.lstm", inner, inner, config.prediction_layers),
        **_linear("joint.net.0", config.joint_hidden, width + inner),
        **_linear("joint.net.3", len(ALPHABET) + 1, config.joint_hidden),
    }


def _lstm(name: str, inputs: int, hidden: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        shapes[f"{name}.weight_ih_l{layer}"] = (4 * hidden, inputs if layer == 0 else hidden)
        shapes[f"{name}.weight_hh_l{layer}"] = (4 * hidden, hidden)
        shapes |= {f"{name}.bias_{kind}_l{layer}": (4 * hidden,) for kind in ("ih", "hh")}
    return shapes


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def config_of(shapes: Shapes, source: str) -> RnntConfig:
    """The sizes of the model that these tensors make.

    Raises InputError naming the first tensor that is missing, surplus, or does not fit to the others.
    """

    def length(name: str, axis: int) -> int:
        if name not in shapes or len(shapes[name]) != 2:
            raise InputError(f"{source}: no matrix {name!r} in it: put an RNN-T checkpoint there")
        return shapes[name][axis]

    def layers(name: str) -> int:
        return sum(key.startswith(f"{name}.lstm.weight_hh_l") for key in shapes)

    config = RnntConfig(
        encoder_hidden=length("encoder.pre_rnn.lstm.weight_hh_l0", 1),
        pre_layers=layers("encoder.pre_rnn"),
        post_layers=layers("encoder.post_rnn"),
        prediction_hidden=length("prediction.dec_rnn.lstm.weight_hh_l0", 1),
        prediction_layers=layers("prediction.dec_rnn"),
        joint_hidden=length("joint.net.0.weight", 0),
    )
    check_shapes(shapes, weight_shapes(config), source, "other tensors")
    return config


def memory_gb(backend: str, dtype: str, batch: int, device: str) -> float:
    """Of the full-size model: weights and libraries, dev-clean's waveforms, and a batch of 15 s. Measured: 0.016 GB for
    each utterance on a CPU in float32, 0.010 on a GPU in float16."""
    return 0.6 + 0.5 + (0.016 if device == "cpu" else 0.012) * batch
