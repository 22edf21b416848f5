"""Candidates on a GPU in one pass over the logits: what passes the threshold is listed, and the rest forgotten.

Lists are long enough for most images. For which they are not, `Selected.is_full` says; `detection.candidates`, which
sorts all, finds theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bench_retinanet.config import ANCHORS
from bench_retinanet.model import Level
from bench_retinanet.postprocess import PER_LEVEL, THRESHOLD
from bench_retinanet.pytorch import kernels
from bench_retinanet.pytorch.detection import Candidates, Selected, decoded, passed, ranked, rows, taken

CAPACITY = 4096
"""Of a level's list: four times as many as are kept."""
_LIMIT = math.log(THRESHOLD / (1 - THRESHOLD)) - 1e-4
"""A logit below any whose score passes the threshold; scores decide."""


def selected(levels: Sequence[Level], anchors: Sequence[Tensor], image: int) -> Selected:
    """As `detection.candidates`, of levels whose logits are without their bias."""
    logits = levels[0].logits
    found = kernels.lists(len(logits), len(levels), CAPACITY, logits.device)
    for number, level in enumerate(levels):
        assert level.bias is not None
        kernels.select(level.logits, level.bias, _LIMIT, number, found)
    return Selected(_best(found, levels, anchors, image), (found.counts > CAPACITY).any(dim=1))


def _best(found: kernels.Lists, levels: Sequence[Level], anchors: Sequence[Tensor], image: int) -> Candidates:
    classes = levels[0].logits.shape[1] // ANCHORS
    values, order = found.values.topk(PER_LEVEL, dim=2)
    places, order_of_places = found.places.gather(2, order).sort(dim=2)
    scores = values.gather(2, order_of_places).sigmoid().flatten(1)
    firsts = [0, *torch.tensor([len(boxes) for boxes in anchors[:-1]]).cumsum(0).tolist()]
    chosen = torch.cat([places[:, level] // classes + first for level, first in enumerate(firsts)], dim=1).long()
    deltas = torch.cat([rows(level.deltas) for level in levels], dim=1)
    boxes = decoded(taken(deltas, chosen).float(), torch.cat(tuple(anchors))[chosen]).clamp(0, image)
    return ranked(passed(Candidates(scores, boxes, places.flatten(1).long() % classes)))
