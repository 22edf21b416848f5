"""The miniature is a real test of accuracy: trained, scored in FP32, hurt by what hurts a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bench_retinanet import accuracy
from bench_retinanet.anchors import level_anchors
from bench_retinanet.benchmark import BENCHMARK, MINI
from bench_retinanet.config import FILE
from bench_retinanet.dataset import Batch, Dataset
from bench_retinanet.model import Level, RetinaNet, fold, normalisation, normalised
from bench_retinanet.official import ANNOTATIONS, IMAGE_FOLDERS, ONNX
from bench_retinanet.postprocess import Detections, encode, packed
from bench_retinanet.pytorch import detection
from bench_retinanet.pytorch.detection import detect
from bench_retinanet.standins import SIZES, generate, train
from bench_retinanet.standins.miniature import WEIGHTS, prepare, read_weights
from loadgen.contracts import Entry, Scoring
from loadgen.harness.cli import invoke
from loadgen.harness.standins.making import STAMP

REFERENCE = MINI.reference["mAP"]
TARGET = 0.99 * REFERENCE
WRITER = {"weights": MINI.weights}
Load = Callable[..., Any]
Rows = npt.NDArray[np.float32]


def score(data: Dataset, batches: Iterator[Detections], change: Callable[[Rows], Rows] = lambda rows: rows) -> float:
    """mAP of detections of batches of 50, in the data's order; change: of each answer's rows."""

    def entries() -> Iterator[Entry]:
        for number, found in enumerate(batches):
            indices = np.arange(50 * number, 50 * number + len(found.counts))
            rows, offsets, _ = encode(found, indices, data)
            cuts = np.asarray(offsets) // 28
            for index, start, end in zip(indices.tolist(), cuts[:-1], cuts[1:], strict=True):
                yield Entry(index, np.ascontiguousarray(change(np.asarray(rows)[start:end])).tobytes())

    return accuracy.score(entries(), data, Scoring(Path()))["mAP"]


def batches(data: Dataset) -> Iterator[Batch]:
    for first in range(0, data.total_count, 50):
        yield data.gather(np.arange(first, first + 50))


@pytest.mark.parametrize("name", BENCHMARK.backends)
def test_every_backend_gives_the_stated_score(name: str, mini: Path, mini_dataset: Dataset, load: Load) -> None:
    backend = load(name, mini / "model", extra=WRITER)
    found = (backend.submit(batch).result() for batch in batches(mini_dataset))
    assert score(mini_dataset, found) == pytest.approx(REFERENCE, abs=0.05)


@pytest.fixture(scope="module")
def levels(mini_dataset: Dataset) -> list[list[Level]]:
    """What the heads give for all images, in batches of 50."""
    return computed(mini_dataset, read_weights()[1])


@torch.inference_mode()
def computed(data: Dataset, tensors: dict[str, Any]) -> list[list[Level]]:
    model = RetinaNet(read_weights()[0])
    model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()}, strict=False)
    fold(model.eval())
    constants = normalisation(torch.device("cpu"))
    images = (normalised(torch.from_numpy(batch.images), constants) for batch in batches(data))
    return [model.heads(model.features(x)) for x in images]


@torch.inference_mode()
def detected(levels: list[list[Level]], anchors: list[Any] | None = None) -> Iterator[Detections]:
    boxes = [torch.from_numpy(level) for level in anchors or level_anchors(read_weights()[0])]
    for made in levels:
        found = detect(made, boxes, SIZES["image"])
        yield packed(*(column.numpy() for column in (found.boxes, found.scores, found.labels)))


def rounded(value: Any, bits: int) -> Any:
    """To so many bits and back, one scale an output channel."""
    if value.ndim < 2:
        return value
    scale = np.abs(value).max(axis=tuple(range(1, value.ndim)), keepdims=True) / (2 ** (bits - 1) - 1)
    return (np.round(value / scale) * scale).astype(np.float32)


@pytest.mark.parametrize(("bits", "low", "high"), [(8, TARGET, REFERENCE + 0.5), (4, 20, TARGET - 5)])
def test_8_bits_meet_the_target_and_4_miss_it(bits: int, low: float, high: float, mini_dataset: Dataset) -> None:
    tensors = {name: rounded(value, bits) for name, value in read_weights()[1].items()}
    assert low < score(mini_dataset, detected(computed(mini_dataset, tensors))) < high


def test_bfloat16_meets_it(mini: Path, mini_dataset: Dataset, load: Load) -> None:
    backend = load("pytorch", mini / "model", dtype="bfloat16", extra=WRITER)
    found = (backend.submit(batch).result() for batch in batches(mini_dataset))
    assert TARGET < score(mini_dataset, found) < REFERENCE + 0.5


def test_scores_cut_off_at_a_third_miss_it(levels: Any, mini_dataset: Dataset) -> None:
    assert score(mini_dataset, detected(levels), lambda rows: rows[rows[:, 5] > 0.3]) < TARGET - 3


def test_sides_exchanged_miss_it(levels: Any, mini_dataset: Dataset) -> None:
    assert score(mini_dataset, detected(levels), lambda rows: rows[:, [0, 2, 1, 4, 3, 5, 6]]) < 5


def test_boxes_left_over_each_other_miss_it(
    levels: Any, mini_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "keep", lambda boxes, alive: alive)
    assert score(mini_dataset, detected(levels)) < TARGET - 10


def test_strides_of_powers_of_two_miss_it(levels: Any, mini_dataset: Dataset) -> None:
    """64 and 128 for the two coarsest levels, in the place of 53 and 80."""
    anchors = level_anchors(read_weights()[0])
    for level, (side, more) in {3: (3, 64 - 53), 4: (2, 128 - 80)}.items():
        columns, rows = np.meshgrid(np.arange(side), np.arange(side))
        steps = np.stack([columns, rows, columns, rows], axis=2).reshape(-1, 4).repeat(9, axis=0)
        anchors[level] = (anchors[level] + more * steps).astype(np.float32)
    assert score(mini_dataset, detected(levels, anchors)) < TARGET - 5


def test_anchors_moved_by_half_a_stride_miss_it(levels: Any, mini_dataset: Dataset) -> None:
    steps = (8, 16, 32, 53, 80)
    moved = [
        (boxes + step / 2).astype(np.float32)
        for boxes, step in zip(level_anchors(read_weights()[0]), steps, strict=True)
    ]
    assert score(mini_dataset, detected(levels, moved)) < 5


def test_answers_of_the_next_image_miss_it(levels: Any, mini_dataset: Dataset) -> None:
    moved = [[Level(level.logits.roll(1, 0), level.deltas.roll(1, 0)) for level in made] for made in levels]
    assert score(mini_dataset, detected(moved)) < 5


def test_some_images_have_no_detections_and_some_objects_none(levels: Any, mini_dataset: Dataset) -> None:
    counts = np.concatenate([found.counts for found in detected(levels)])
    assert (counts == 0).any()
    assert 20 < counts.mean() < 150


def test_the_data_is_as_stated(mini_dataset: Dataset) -> None:
    known = mini_dataset.annotations
    areas = np.array([box["area"] for box in known.boxes])
    sizes = [(areas < 32**2).mean(), ((areas >= 32**2) & (areas < 96**2)).mean(), (areas >= 96**2).mean()]
    assert min(sizes) > 0.1, "small, medium and large objects, as COCO has them"
    assert {box["category_id"] for box in known.boxes} == set(range(SIZES["classes"])) == set(known.categories)
    assert sum(box["iscrowd"] for box in known.boxes) > 10
    assert len({box["image_id"] for box in known.boxes}) < len(known.pictures) == MINI.samples, "some show nothing"
    assert len({(picture.height, picture.width) for picture in known.pictures}) > 200


def test_objects_cover_each_other(mini_dataset: Dataset) -> None:
    def overlap(a: Any, b: Any) -> bool:
        return all(a[side] < b[side] + b[side + 2] and b[side] < a[side] + a[side + 2] for side in (0, 1))

    boxes: dict[int, list[Any]] = {}
    for box in mini_dataset.annotations.boxes:
        boxes.setdefault(box["image_id"], []).append(box["bbox"])
    pairs = sum(overlap(a, b) for found in boxes.values() for n, a in enumerate(found) for b in found[:n])
    assert pairs > 100


def test_a_box_is_where_the_shape_is() -> None:
    """Of large shapes the middle of the box has another colour than its surroundings."""
    differences = []
    for number in range(40):
        pixels, objects = generate.draw(np.random.default_rng([3, number]))
        for found in objects:
            if found.width > 40 and found.height > 40 and list(generate.SHAPES)[found.label] in ("disc", "square"):
                row, column = int(found.top + found.height / 2), int(found.left + found.width / 2)
                inside = pixels[row - 3 : row + 3, column - 3 : column + 3].mean((0, 1))
                outside = pixels[row - 3 : row + 3, max(0, int(found.left) - 8) : int(found.left) - 2]
                if outside.size:
                    differences.append(np.abs(inside - outside.mean((0, 1))).max())
    assert len(differences) > 8
    assert np.median(differences) > 20


def test_an_image_follows_from_its_number_alone(mini: Path, tmp_path: Path) -> None:
    generate.write(tmp_path, count=3)
    for name in (f"{0:016x}.jpg", f"{2:016x}.jpg"):
        file = Path(IMAGE_FOLDERS[0]) / name
        assert (tmp_path / file).read_bytes() == (mini / "data" / file).read_bytes()


def test_prepare_makes_the_data_once_and_leaves_weights_alone(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "write", lambda folder: pytest.fail("the data was there"))
    (mini / "model" / "kept").touch()
    prepare(mini)
    assert (mini / "model" / "kept").is_file()


def test_another_version_takes_the_old_weights_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "write", lambda folder: None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ONNX).touch()
    (tmp_path / STAMP).write_text("another version")
    prepare(tmp_path)
    assert [file.name for file in (tmp_path / "model").iterdir()] == [FILE]


def test_the_weights_are_small_and_of_the_stated_sizes() -> None:
    assert WEIGHTS.stat().st_size < 2_000_000
    assert read_weights()[0] == train.CONFIG


def test_training_aims_at_what_detection_reads() -> None:
    """Outputs that are exactly what the training wants detect the objects, and have nearly no loss."""
    drawn = train.images(0, 3, 1)
    anchors = torch.from_numpy(np.concatenate(level_anchors(train.CONFIG)))
    overlaps = train._overlaps(drawn.boxes, anchors).masked_fill(drawn.labels[:, :, None] < 0, -1)
    which = overlaps.argmax(dim=1)
    targets = drawn.boxes.gather(1, which[:, :, None].expand(-1, -1, 4))
    deltas = torch.stack([train._encoded(boxes, anchors) for boxes in targets]).clamp(-9, 9)
    nearest = ((overlaps == overlaps.amax(2, keepdim=True)) & (overlaps > 0)).any(1)
    sure = nearest | (overlaps.amax(1) >= 0.5)
    labels = drawn.labels.gather(1, which)
    logits = torch.nn.functional.one_hot(labels.clamp(min=0), 8) * sure[:, :, None] * 20.0 - 10
    made, place = [], 0
    for boxes, side in zip(level_anchors(train.CONFIG), (20, 10, 5, 3, 2), strict=True):
        cut = slice(place, place + len(boxes))
        place += len(boxes)
        parts = (x[:, cut].view(3, side, side, -1).permute(0, 3, 1, 2) for x in (logits, deltas))
        made.append(Level(*parts))
    assert train._loss(made, drawn, anchors) < 0.01
    (found,) = detected([made])
    assert found.counts.tolist() == (drawn.labels >= 0).sum(1).tolist()


def test_the_miniature_can_be_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ["--images", "8", "--steps", "2", "--workers", "1", "--device", "cpu"]
    assert invoke(BENCHMARK, ["train-mini", "--output", str(tmp_path / "w.npz"), *few]) == 0
    assert "standins/weights.npz is the file that the miniature uses" in capfd.readouterr().out
    with np.load(tmp_path / "w.npz") as made, np.load(WEIGHTS) as committed:
        assert {name: made[name].shape for name in made} == {name: committed[name].shape for name in committed}


def test_annotations_have_the_official_keys(mini: Path) -> None:
    document = json.loads((mini / "data" / ANNOTATIONS).read_text())
    assert set(document["images"][0]) == {"id", "file_name", "height", "width", "license", "coco_url"}
    known = {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}
    known |= {"IsOccluded", "IsInside", "IsDepiction", "IsTruncated", "IsGroupOf"}
    assert set(document["annotations"][0]) == known
    assert document["images"][0]["id"] == 1
