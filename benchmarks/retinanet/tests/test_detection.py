"""Boxes, thresholds and NMS: against torchvision's whole model, and against loops that follow the definitions."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench_retinanet import model as network
from bench_retinanet.anchors import all_anchors, cell_anchors, level_anchors, strides
from bench_retinanet.config import RetinaNetConfig, grids
from bench_retinanet.dataset import Batch
from bench_retinanet.model import Level, RetinaNet, fold
from bench_retinanet.postprocess import MOST, packed
from bench_retinanet.pytorch import detection
from bench_retinanet.pytorch.detection import Candidates, candidates, decoded, detect, keep, overlap, suppressed
from bench_retinanet.pytorch.heads import Canvas, places

MADE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("make_golden.py"))))


def test_anchors_are_the_references() -> None:
    """Figures of the reference's own code."""
    config = RetinaNetConfig()
    assert grids(config) == [100, 50, 25, 13, 7]
    assert strides(config) == [8, 16, 32, 61, 114]
    assert all_anchors(config).shape == (120_087, 4)
    first = [[-23, -11, 23, 11], [-28, -14, 28, 14], [-35, -18, 35, 18], [-16, -16, 16, 16], [-20, -20, 20, 20]]
    first += [[-25, -25, 25, 25], [-11, -23, 11, 23], [-14, -28, 14, 28], [-18, -35, 18, 35]]
    assert cell_anchors(32).tolist() == first
    assert level_anchors(config)[3][9 * 13 + 9].tolist() == (cell_anchors(256)[0] + [61, 61, 61, 61]).tolist()


@pytest.fixture(scope="module")
def torchvisions() -> RetinaNet:
    """The network of the recorded weights."""
    model = RetinaNet(MADE.CONFIG)
    state = {name: torch.from_numpy(value) for name, value in MADE.tensors().items()}
    model.load_state_dict(state, strict=False)
    fold(model.eval())
    return model


@torch.inference_mode()
def found_by(model: RetinaNet, config: RetinaNetConfig, images: Any) -> list[Any]:
    anchors = [torch.from_numpy(boxes) for boxes in level_anchors(config)]
    found = detect(model(torch.from_numpy(images)), anchors, config.image)
    columns = [column.numpy() for column in (found.boxes, found.scores, found.labels)]
    return [packed(*(column[place : place + 1] for column in columns)) for place in range(len(images))]


def difference(found: list[Any], golden: list[dict[str, Any]]) -> float:
    """Pixels, or hundredths of scores, between detections of a class; infinity if they are not as many."""
    most = 0.0
    for ours, theirs in zip(found, golden, strict=True):
        expected = packed(*(np.array(theirs[name])[None] for name in ("boxes", "scores", "labels")))
        if sorted(ours.labels) != sorted(expected.labels):
            return np.inf
        for label in set(theirs["labels"]):  # of two classes scores may be equal but for rounding
            (box, score), (other, its) = (
                (f.boxes[f.labels == label], f.scores[f.labels == label]) for f in (ours, expected)
            )
            most = max(most, float(np.abs(box - other).max()), 100 * float(np.abs(score - its).max()))
    return most


def test_detections_are_torchvisions(torchvisions: RetinaNet) -> None:
    golden = json.loads(MADE.FILE.read_text())["images"]
    assert all(len(image["labels"]) > 100 for image in golden)
    found = found_by(torchvisions, MADE.CONFIG, MADE.pictures())
    assert difference(found, golden) < 0.01


def _p6_from_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = network.Pyramid.forward

    def forward(self: Any, stages: list[Tensor]) -> list[Tensor]:
        found = whole(self, stages)
        p6 = self.extra_blocks["p6"](self.inner_blocks[-1](stages[-1]))
        return [*found[:3], p6, self.extra_blocks["p7"](torch.relu(p6))]

    monkeypatch.setattr(network.Pyramid, "forward", forward)


def _p7_without_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = network.Pyramid.forward

    def forward(self: Any, stages: list[Tensor]) -> list[Tensor]:
        found = whole(self, stages)
        return [*found[:4], self.extra_blocks["p7"](found[3])]

    monkeypatch.setattr(network.Pyramid, "forward", forward)


def _strides_of_powers_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = level_anchors(MADE.CONFIG)
    assert strides(MADE.CONFIG)[4] == 96
    moved[4] = moved[4] + np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32).repeat(9, 0)[:, [0, 1, 0, 1]] * 32
    monkeypatch.setitem(globals(), "level_anchors", lambda config: moved)


def _half_a_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = strides(MADE.CONFIG)
    moved = [boxes + np.float32(step / 2) for boxes, step in zip(level_anchors(MADE.CONFIG), steps, strict=True)]
    monkeypatch.setitem(globals(), "level_anchors", lambda config: moved)


def _without_nms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "keep", lambda boxes, alive: alive)


def _without_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = detection.suppressed
    monkeypatch.setattr(detection, "suppressed", lambda found: whole(found._replace(labels=found.labels * 0)))


FAULTS = [_p6_from_the_backbone, _p7_without_relu, _strides_of_powers_of_two, _half_a_stride, _without_nms]


@pytest.mark.parametrize("fault", [*FAULTS, _without_classes])
def test_a_planted_fault_is_seen_beside_torchvision(
    fault: Any, torchvisions: RetinaNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = json.loads(MADE.FILE.read_text())["images"]
    fault(monkeypatch)
    assert difference(found_by(torchvisions, MADE.CONFIG, MADE.pictures()), golden) > 1


def crowded(count: int, seed: int, images: int = 3) -> Tensor:
    """[n, count, 4] boxes, many of them over each other, some without area, some twice."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 150, (images, count, 2)).round()
    boxes = np.concatenate([corners, corners + rng.integers(0, 60, corners.shape)], axis=2)
    boxes[:, 5] = boxes[:, 3]
    return torch.from_numpy(boxes.astype(np.float32))


def one_by_one(boxes: Any, alive: Any) -> list[int]:
    """Greedy NMS by its definition."""
    kept: list[int] = []
    for place in range(len(boxes)):
        if alive[place] and all(iou(boxes[other], boxes[place]) <= 0.5 for other in kept):
            kept.append(place)
    return kept


def iou(a: Any, b: Any) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high
    return wide * high / union if union else 0.0


@pytest.mark.parametrize("block", [7, 64, 512])
@pytest.mark.parametrize("count", [1, 90, 250])
def test_nms_equals_the_loop(block: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_BLOCK", block)
    boxes = crowded(max(count, 6), count)[:, :count]
    alive = torch.rand(boxes.shape[:2], generator=torch.Generator().manual_seed(count)) < 0.8
    kept = keep(boxes, alive)
    for image, stay, live in zip(boxes.tolist(), kept, alive.tolist(), strict=True):
        assert stay.nonzero().flatten().tolist() == one_by_one(image, live)


def test_a_chain_of_overlaps_is_settled() -> None:
    """Each box overlaps the next by more than half, and no other: every second one stays."""
    left = torch.arange(200.0)[:, None] * 20
    boxes = torch.cat([left, left * 0, left + 100, left * 0 + 10], dim=1)[None]
    step = overlap(boxes, boxes)[0]
    assert step[0].nonzero().flatten().tolist() == [0, 1]
    assert keep(boxes, torch.ones(1, 200, dtype=torch.bool))[0].nonzero().flatten().tolist() == list(range(0, 200, 2))


def test_the_search_ends_when_every_image_has_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_BLOCK", 100)
    left = torch.arange(700.0)[:, None] * 10
    boxes = torch.cat([left, left * 0, left + 5, left * 0 + 10], dim=1)[None]
    kept = keep(boxes, torch.ones(1, 700, dtype=torch.bool))
    assert kept.sum() == MOST
    assert kept[0, :MOST].all()
    found = Candidates(torch.linspace(1, 0.1, 700)[None], boxes, torch.zeros(1, 700, dtype=torch.int64))
    assert suppressed(found).scores.shape == (1, MOST)


def levels(config: RetinaNetConfig, seed: int, images: int = 2, ties: bool = False) -> list[Level]:
    """Random outputs of the heads; ties: of few different values."""
    made = []
    generator = torch.Generator().manual_seed(seed)
    for side in grids(config):
        logits = torch.randn((images, 9 * config.classes, side, side), generator=generator) * 2 - 4
        deltas = torch.randn((images, 36, side, side), generator=generator)
        made.append(Level((logits * 2).round() / 2 if ties else logits, deltas))
    return made


def in_order(config: RetinaNetConfig, made: list[Level], image: int) -> list[tuple[float, int, list[float]]]:
    """(score, label, box) of every candidate of one image, by the definition: level by level, all pairs sorted."""
    found: list[tuple[float, int, list[float]]] = []
    for level, anchors in zip(made, level_anchors(config), strict=True):
        side = level.logits.shape[-1]
        split_ = level.logits[image].view(9, config.classes, side, side).permute(2, 3, 0, 1).reshape(-1, config.classes)
        deltas = level.deltas[image].view(9, 4, side, side).permute(2, 3, 0, 1).reshape(-1, 4)
        boxes = decoded(deltas, torch.from_numpy(anchors)).clamp(0, config.image)
        scores = split_.sigmoid().flatten()
        over = [place for place in scores.argsort(descending=True, stable=True).tolist() if scores[place] > 0.05]
        for place in over[:1000]:
            row, label = divmod(place, config.classes)
            found.append((float(scores[place]), label, boxes[row].tolist()))
    return sorted(found, key=lambda entry: -entry[0])


@pytest.mark.parametrize("ties", [False, True])
def test_candidates_are_the_best_of_each_level(ties: bool, small_config: RetinaNetConfig) -> None:
    made = levels(small_config, 3, ties=ties)
    anchors = [torch.from_numpy(boxes) for boxes in level_anchors(small_config)]
    found = candidates(made, anchors, small_config.image)
    for image in range(2):
        expected = in_order(small_config, made, image)
        count = int((found.scores[image] > 0).sum())
        assert count == len(expected) > 1500
        assert found.scores[image, :count].tolist() == pytest.approx([score for score, *_ in expected], abs=1e-6)
        if not ties:  # of equal scores at the thousandth place any may be taken
            assert found.labels[image, :count].tolist() == [label for _, label, _ in expected]
            boxes = torch.tensor([box for *_, box in expected])
            assert torch.allclose(found.boxes[image, :count], boxes, atol=1e-4)
        assert not found.boxes[image, count:].any()


def test_equal_scores_keep_their_order(small_config: RetinaNetConfig) -> None:
    """Two boxes of one score and class over each other: the one of the earlier place stays."""
    made = [Level(level.logits * 0 - 9, level.deltas * 0) for level in levels(small_config, 1, images=1)]
    made[0].logits[0, small_config.classes * 4 + 2, 3, 3] = 1.0
    made[0].logits[0, small_config.classes * 5 + 2, 3, 3] = 1.0
    anchors = [torch.from_numpy(boxes) for boxes in level_anchors(small_config)]
    found = detect(made, anchors, small_config.image)
    assert (found.scores > 0).sum() == 1
    assert found.boxes[0, 0].tolist() == anchors[0][(3 * 20 + 3) * 9 + 4].tolist()


def test_a_huge_growth_is_clipped() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    grown = decoded(torch.tensor([[0.0, 0.0, 50.0, 50.0]]), anchors)[0]
    assert grown.tolist() == pytest.approx([5 - 312.5, 10 - 625, 5 + 312.5, 10 + 625], rel=1e-5)


def test_a_score_that_is_no_number_is_an_error(small_config: RetinaNetConfig) -> None:
    made = levels(small_config, 2)
    made[1].logits[1, 7, 2, 2] = torch.nan
    anchors = [torch.from_numpy(boxes) for boxes in level_anchors(small_config)]
    with pytest.raises(ValueError, match="a score is not a number"):
        detect(made, anchors, small_config.image)


def test_the_canvas_gives_what_the_levels_do(
    small_tensors: dict[str, Any], small_batch: Batch, small_config: RetinaNetConfig
) -> None:
    model = RetinaNet(small_config)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in small_tensors.items()}, strict=False)
    fold(model.eval())
    with torch.inference_mode():
        features = model.features(torch.from_numpy(small_batch.images))
        for ours, theirs in zip(Canvas(model, small_config)(features), model.heads(features), strict=True):
            assert torch.allclose(ours.logits, theirs.logits, atol=1e-5)
            assert torch.allclose(ours.deltas, theirs.deltas, atol=1e-5)
    assert places([100, 50, 25, 13, 7])[4] == (slice(91, 98), slice(101, 108))


def test_folding_changes_nothing(
    small_tensors: dict[str, Any], small_batch: Batch, small_config: RetinaNetConfig
) -> None:
    models = []
    for change in (lambda model: None, fold):
        model = RetinaNet(small_config)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in small_tensors.items()}, strict=False)
        change(model.eval())
        models.append(model)
    with torch.inference_mode():
        plain, folded = (model(torch.from_numpy(small_batch.images)) for model in models)
    assert all(torch.allclose(a.logits, b.logits, atol=1e-4) for a, b in zip(plain, folded, strict=True))
