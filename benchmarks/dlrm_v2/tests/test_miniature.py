"""The miniature is a real test of accuracy: trained, scored in FP32, and hurt by the usual mistakes.

AUC counts the order of probabilities only, and does not see how precise they are: that is `test_backend.py`'s.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from bench_dlrm_v2.benchmark import BENCHMARK, MINI
from bench_dlrm_v2.config import PREFIX, table_name
from bench_dlrm_v2.dataset import Dataset
from bench_dlrm_v2.model import Dlrm
from bench_dlrm_v2.pytorch.backend import Backend
from bench_dlrm_v2.standins.generate import DAY_SEED, PAIRS, world
from bench_dlrm_v2.standins.miniature import WEIGHTS, prepare, read_weights
from loadgen.contracts import BackendOptions
from loadgen.harness.cli import invoke

TARGET = 0.99 * MINI.reference["AUC"]
Weights = dict[str, torch.Tensor]
Model = Callable[[Dlrm], object]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return {name.removeprefix(PREFIX): torch.from_numpy(value) for name, value in read_weights()[1].items()}


@pytest.fixture(scope="module")
def auc(mini_dataset: Dataset, weights: Weights) -> Callable[..., float]:
    """AUC in percent of a model with something wrong in it, or in what it reads."""
    pairs = mini_dataset.pairs
    dense = torch.from_numpy(mini_dataset.files.dense[:pairs])
    indices = [torch.from_numpy(ids[:pairs]) for ids in mini_dataset.files.columns]
    labels = mini_dataset.labels[:pairs]

    @torch.inference_mode()
    def measure(
        changed: Weights | None = None, model: Model = lambda _: None, read: Callable[[Any], Any] = lambda ids: ids
    ) -> float:
        network = Dlrm(read_weights()[0]).eval()
        network.load_state_dict(weights | (changed or {}), strict=True)
        model(network)
        return 100 * float(roc_auc_score(labels, network.predict(dense, read(indices)).numpy()))

    return measure


def bags_of(network: Dlrm) -> Any:
    collection: Any = network.sparse_arch["embedding_bag_collection"]
    return collection["embedding_bags"]


def without_cross(network: Dlrm) -> None:
    network.inter_arch["crossnet"] = torch.nn.Identity()


def averaging(network: Dlrm) -> None:
    for bag in bags_of(network).values():
        bag.mode = "mean"


def shifted(network: Dlrm) -> None:
    """Each bag where the next table's belongs."""
    plain, dim = network.forward, 8
    network.forward = lambda dense, bags: plain(dense, torch.roll(bags, dim, 1))  # type: ignore[method-assign]


def without_dense(network: Dlrm) -> None:
    network.dense_arch["model"] = torch.nn.Sequential(network.dense_arch["model"], torch.nn.Threshold(1e9, 0.0))


def test_fp32_gives_the_stated_score(mini: Path, mini_dataset: Dataset, auc: Callable[..., float]) -> None:
    """By the backend and by the plain model; the score is between 76 and 84, and below the best that can be."""
    backend = Backend(BackendOptions(mini / "model", threads=1))
    backend.load()
    answers = backend.submit(mini_dataset.gather(np.arange(mini_dataset.total_count))).result()
    found = 100 * roc_auc_score(mini_dataset.labels[: mini_dataset.pairs], answers)
    assert found == pytest.approx(MINI.reference["AUC"], abs=0.002)
    assert auc() == pytest.approx(found, abs=0.002)
    assert 76 <= found <= 84


def test_nobody_could_score_more_than_847() -> None:
    """The clicks' own chances, of which the labels were drawn."""
    drawn = world().draw(DAY_SEED, PAIRS)
    half = -(-PAIRS // 2)
    assert 100 * roc_auc_score(drawn.labels[:half], drawn.chances[:half]) == pytest.approx(84.705, abs=0.01)
    assert drawn.labels.mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("model", [without_cross, averaging, shifted])
def test_a_wrong_model_misses_the_target(model: Model, auc: Callable[..., float]) -> None:
    assert auc(model=model) < TARGET - 2


def test_dense_features_that_are_not_read_are_seen(auc: Callable[..., float]) -> None:
    assert auc(model=without_dense) < TARGET


def test_the_first_of_several_indices_is_not_enough(auc: Callable[..., float]) -> None:
    assert auc(read=lambda indices: [ids[:, :1] for ids in indices]) < TARGET - 2


@pytest.mark.parametrize("number", range(26))
def test_each_wrong_table_misses_the_target(number: int, weights: Weights, auc: Callable[..., float]) -> None:
    """As if its rows were another table's: the same values at other places. 79.7 to 80.8 where measured."""
    name = table_name(number).removeprefix(PREFIX)
    order = torch.randperm(len(weights[name]), generator=torch.Generator().manual_seed(number))
    assert auc({name: weights[name][order]}) < TARGET


def test_two_tables_in_each_others_place_miss_the_target(weights: Weights, auc: Callable[..., float]) -> None:
    names = [table_name(number).removeprefix(PREFIX) for number in range(26)]
    same = [(a, b) for a, b in itertools.pairwise(names) if weights[a].shape == weights[b].shape]
    assert len(same) >= 10
    for a, b in same[::3]:
        assert auc({a: weights[b], b: weights[a]}) < TARGET - 1


@pytest.mark.parametrize("bits", [8, 4])
def test_auc_is_blind_to_precision(bits: int, weights: Weights, auc: Callable[..., float]) -> None:
    """So no score guards it: golden values and the other number formats' distance to them do."""
    rounded = {}
    for name, value in weights.items():
        if "t_cat_" in name:
            scale = value.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            rounded[name] = torch.round(value / scale) * scale
    assert abs(auc(rounded) - MINI.reference["AUC"]) < 0.1


def test_untrained_weights_score_nothing(weights: Weights, auc: Callable[..., float]) -> None:
    generator = torch.Generator().manual_seed(0)
    assert (
        abs(
            auc({n: torch.randn(v.shape, generator=generator) * v.std() for n, v in weights.items() if v.numel() > 1})
            - 50
        )
        < 5
    )


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 400_000


def test_preparing_twice_changes_nothing(tmp_path: Path) -> None:
    prepare(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    prepare(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_it_can_be_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ["--steps", "10", "--batch", "50", "--pairs", "1000", "--device", "cpu"]
    assert invoke(BENCHMARK, ["train-mini", "--output", str(tmp_path / "w.npz"), *few]) == 0
    assert "step 10 of 10: loss" in capfd.readouterr().out
    with np.load(tmp_path / "w.npz") as made, np.load(WEIGHTS) as committed:
        assert {name: made[name].shape for name in made} == {name: committed[name].shape for name in committed}
