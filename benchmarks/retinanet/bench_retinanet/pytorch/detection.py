"""From what the heads give to detections, on tensors of a whole batch: thresholds, the best of each level, boxes, NMS.

The rules are the reference's: of each level the 1,000 best pairs of an anchor and a class whose score is over 0.05; of
all levels together those that overlap no better one of their class by more than half; of these the 300 best. Classes
are kept apart as in the official ONNX file, by moving boxes: each class has a place of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bench_retinanet.anchors import CLIP
from bench_retinanet.config import ANCHORS
from bench_retinanet.model import Level
from bench_retinanet.postprocess import MOST, OVERLAP, PER_LEVEL, THRESHOLD

_BLOCK = 256  # boxes that are compared with all before them at once: bounds the memory, and most images need one


class Candidates(NamedTuple):
    """[n, m] of each image; those that fail the threshold have a score of 0."""

    scores: Tensor
    boxes: Tensor
    """[n, m, 4]: left, top, right, bottom in pixels."""
    labels: Tensor


class Selected(NamedTuple):
    """Candidates of a batch that were found in a shorter way."""

    candidates: Candidates
    is_full: Tensor
    """bool [n]: of which images there are more than the shorter way can hold, and `candidates` has to find them"""


def detect(levels: Sequence[Level], anchors: Sequence[Tensor], image: int) -> Candidates:
    """Of each image at most MOST, best first. anchors: [locations * 9, 4] of each level; image: pixels of a side.

    One image after another, because they differ in how many candidates they have: a CPU would wait for the most."""
    found = candidates(levels, anchors, image)
    images = range(len(found.scores))
    parts = [suppressed(Candidates(*(column[place : place + 1] for column in found))) for place in images]
    columns = zip(*parts, strict=True)
    return Candidates(*(pad_sequence([one[0] for one in column], batch_first=True) for column in columns))


def candidates(levels: Sequence[Level], anchors: Sequence[Tensor], image: int) -> Candidates:
    """Best first; equal scores in the order of levels, locations, anchors and classes.

    Their number, and the shape of all between, does not depend on what images show."""
    found = [_of_level(level, boxes, image) for level, boxes in zip(levels, anchors, strict=True)]
    return ranked(Candidates(*(torch.cat(parts, dim=1) for parts in zip(*found, strict=True))))


def ranked(found: Candidates) -> Candidates:
    """Best first; equal scores keep their order."""
    scores, order = found.scores.sort(dim=1, descending=True, stable=True)
    return Candidates(scores, taken(found.boxes, order), found.labels.gather(1, order))


def _of_level(level: Level, anchors: Tensor, image: int) -> Candidates:
    """In the order of places. A pair that is among the best is of an anchor whose best class is among the best: so
    classes are compared for those anchors only, a hundredth of them."""
    logits, deltas = rows(level.logits), rows(level.deltas)
    classes = logits.shape[2]
    if level.bias is not None:
        logits = logits.float() + level.bias.view(ANCHORS, classes).repeat(logits.shape[1] // ANCHORS, 1)
    best = _best(logits.amax(dim=2))
    pairs = taken(logits, best).flatten(1)
    places = _best(pairs)
    scores = pairs.gather(1, places).float().sigmoid()
    chosen = best.gather(1, places // classes)
    boxes = decoded(taken(deltas, chosen).float(), anchors[chosen]).clamp(0, image)
    return passed(Candidates(scores, boxes, places % classes))


def passed(found: Candidates) -> Candidates:
    """With a score and box of 0 where the score does not pass the threshold; what is not a number stays so."""
    over = found.scores > THRESHOLD
    return Candidates(found.scores * over, found.boxes * over[:, :, None], found.labels)


def rows(x: Tensor) -> Tensor:
    """[n, 9 * parts, side, side] -> [n, locations * 9, parts]; copies nothing if channels are last in memory."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[1] // ANCHORS)


def _best(values: Tensor) -> Tensor:
    """Places of the PER_LEVEL largest of each row, in ascending order."""
    return values.topk(min(PER_LEVEL, values.shape[1]), dim=1).indices.sort(dim=1).values


def taken(values: Tensor, places: Tensor) -> Tensor:
    """[n, m, d] and [n, k] -> [n, k, d]."""
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2]))


def decoded(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes from anchors, and how far they are off: centres in widths and heights, sides as logarithms."""
    sides = anchors[..., 2:] - anchors[..., :2]
    centres = anchors[..., :2] + sides / 2 + deltas[..., :2] * sides
    halves = deltas[..., 2:].clamp(max=CLIP).exp() * sides / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def suppressed(found: Candidates) -> Candidates:
    """Without those that overlap a better one of their class, and without what lies behind the MOST best.

    Raises ValueError if a score is not a number: no threshold would let it pass, and nothing detected be the answer."""
    if bool(found.scores[:, :1].isnan().any()):  # sorts before all numbers
        raise ValueError("a score is not a number; check the weights, or use another number format")
    most = int((found.scores > 0).sum(dim=1).max()) if found.scores.numel() else 0
    scores, boxes, labels = (column[:, :most] for column in found)
    apart = (boxes.amax(dim=(1, 2), keepdim=True) if most else boxes.sum(dim=(1, 2), keepdim=True)) + 1
    kept = keep(boxes + labels[:, :, None] * apart, scores > 0)
    first = kept.int().sort(dim=1, descending=True, stable=True).indices[:, :MOST]
    return Candidates((scores * kept).gather(1, first), taken(boxes, first), labels.gather(1, first))


def keep(boxes: Tensor, alive: Tensor) -> Tensor:
    """Which of [n, m, 4] boxes, best first, stay: bool [n, m], at least the MOST best. alive: those that take part."""
    kept = torch.zeros_like(alive)
    for first in range(0, boxes.shape[1], _BLOCK):
        block = slice(first, first + _BLOCK)
        beaten = (overlap(boxes[:, :first], boxes[:, block]) & kept[:, :first, None]).any(dim=1)
        kept[:, block] = _settled(overlap(boxes[:, block], boxes[:, block]).triu(1), alive[:, block] & ~beaten)
        if bool((kept.sum(dim=1) >= MOST).all()):
            break
    return kept


def _settled(beats: Tensor, alive: Tensor) -> Tensor:
    """Going through boxes one by one, all at once: after n rounds the first n are as they will be, and mostly all.

    beats: [n, m, m], would the first of a pair, which is better, remove the second?"""
    kept = alive
    while True:
        after = alive & ~(beats & kept[:, :, None]).any(dim=1)
        if torch.equal(after, kept):
            return kept
        kept = after


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """[n, a, 4] and [n, b, 4] -> bool [n, a, b]: is their intersection over OVERLAP of their union?"""
    columns = [boxes.unbind(dim=-1) for boxes in (first, second)]
    pairs = [(a[:, :, None], b[:, None, :]) for a, b in zip(*columns, strict=True)]
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in columns]
    both = (torch.minimum(*pairs[2]) - torch.maximum(*pairs[0])).clamp_(min=0)
    both *= (torch.minimum(*pairs[3]) - torch.maximum(*pairs[1])).clamp_(min=0)
    return both / (areas[0][:, :, None] + areas[1][:, None, :] - both) > OVERLAP
