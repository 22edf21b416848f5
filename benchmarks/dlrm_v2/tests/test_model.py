"""The model beside torchrec's, with the same random weights: probabilities recorded by `make_golden.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench_dlrm_v2.config import PREFIX, weight_shapes
from bench_dlrm_v2.model import Dlrm

TOLERANCE = 1e-6


def model_of(made: Any, name: str) -> Dlrm:
    config = made.CONFIGS[name]
    model = Dlrm(config).eval()
    weights = made.drawn(weight_shapes(config), 3)
    model.load_state_dict({k.removeprefix(PREFIX): torch.from_numpy(v) for k, v in weights.items()}, strict=True)
    return model


@torch.inference_mode()
def probabilities(model: Dlrm, made: Any, name: str) -> Any:
    dense, indices = made.pairs(made.CONFIGS[name])
    return model.predict(torch.from_numpy(dense), [torch.from_numpy(ids) for ids in indices]).numpy()


@pytest.mark.parametrize("name", ["small", "official"])
def test_equals_torchrec(name: str, made: Any, golden: Any) -> None:
    """`official`: 16.0 M dense parameters, tables of 128 columns and few rows."""
    expected = np.array(golden["torchrec"][name]["probabilities"])
    assert expected.std() > 0.05, "probabilities that differ enough for the tolerance to mean something"
    assert np.abs(probabilities(model_of(made, name), made, name) - expected).max() < TOLERANCE


@pytest.mark.parametrize("name", ["small", "official"])
def test_names_and_shapes_are_torchrecs(name: str, made: Any, golden: Any) -> None:
    ours = weight_shapes(made.CONFIGS[name])
    assert {name: list(shape) for name, shape in ours.items()} == golden["torchrec"][name]["names"]


def test_a_wrong_layer_would_be_seen(made: Any, golden: Any) -> None:
    model = model_of(made, "small")
    cross: Any = model.inter_arch["crossnet"]
    cross.V_kernels[1].data[0, 0] += 0.01
    difference = probabilities(model, made, "small") - np.array(golden["torchrec"]["small"]["probabilities"])
    assert np.abs(difference).max() > 10 * TOLERANCE
