"""CLIP score and FID of images that come a few at a time: all that is kept of them are sums."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from bench_sdxl.dataset import Statistics
from bench_sdxl.scorers.clip import CLIP, normalised, resized
from bench_sdxl.scorers.frechet import Moments, distance
from bench_sdxl.scorers.inception import Inception
from bench_sdxl.tokenizer import Tokenizer
from loadgen.contracts import InputError

Image = npt.NDArray[np.uint8]


class Judge:
    """Of images of one size, with networks on one device."""

    def __init__(
        self, clip: CLIP, inception: Inception, tokenizer: Tokenizer, statistics: Statistics, feature_side: int
    ) -> None:
        """tokenizer: of the first text encoder, whose vocabulary is CLIP's. Raises InputError if these do not fit."""
        self._clip, self._inception, self._tokenizer = clip, inception, tokenizer
        self._statistics, self._side = statistics, feature_side
        size = inception.fc.in_features
        if len(statistics.mean) != size:
            raise InputError(f"val2014.npz: {len(statistics.mean)} features, the Inception network has {size}")
        if len(tokenizer.ids) != clip.vocabulary:
            raise InputError(f"vocab.json: {len(tokenizer.ids)} pieces, the CLIP network knows {clip.vocabulary}")
        self._device = clip.logit_scale.device
        self._moments = Moments(size)
        self._similarity = 0.0

    @torch.inference_mode()
    def add(self, images: Sequence[Image], captions: Sequence[str]) -> None:
        """Images [H, W, 3], and of each the caption that it was made from."""
        ids = torch.tensor([self._row(caption) for caption in captions], device=self._device)
        seen = self._clip.encode_images(normalised(resized(images, self._clip.side).to(self._device)))
        self._similarity += float((seen * self._clip.encode_texts(ids)).sum(dim=-1).double().sum())
        pixels = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2).float() / 255
        self._moments.add(self._inception(pixels, self._side).cpu().numpy())

    def _row(self, caption: str) -> list[int]:
        """OpenAI's own tokenizer: names of HTML are characters, and padding is 0."""
        length = self._clip.context
        pieces = self._tokenizer.pieces(html.unescape(html.unescape(caption)))[: length - 2]
        row = [self._tokenizer.begin, *pieces, self._tokenizer.end]
        return row + [0] * (length - len(row))

    @property
    def clip_score(self) -> float:
        """100 times the mean cosine between an image and its caption; it may be below 0."""
        return 100 * self._similarity / self._moments.count

    @property
    def fid(self) -> float:
        """Distance to the statistics; of 2 images at least."""
        moments, truth = self._moments, self._statistics
        return distance(moments.mean, moments.covariance, truth.mean, truth.covariance)
