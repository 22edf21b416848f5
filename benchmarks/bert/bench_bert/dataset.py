"""SQuAD v1.1 as BERT reads it: one sample is one window of one question's context.

The steps and their order are the reference's: words at whitespace, WordPieces of each word, a
window `[CLS] question [SEP] context part [SEP]`, and a stride on to the next window until the
context ends. 10,570 questions of dev-v1.1.json become 10,833 samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench_bert.config import FILE, read_config
from bench_bert.squad import Question, read_squad
from bench_bert.tokenizer import Tokenizer, read_vocabulary
from loadgen.contracts import InputError

Ids: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Feature:
    """One window. Position i of the context part is token `context_at + i` of the input."""

    question: int
    ids: npt.NDArray[np.int32]
    context_at: int
    """Tokens before the context part: [CLS], the question and [SEP]."""
    pieces: tuple[str, ...]
    """The context part."""
    words: tuple[int, ...]
    """Of each piece, the index of the context's word that it came from."""
    is_max_context: tuple[bool, ...]
    """Of each piece, whether this window shows more around it than the question's others do."""


@dataclass(frozen=True)
class Batch:
    """Three int64 arrays [n, longest of the batch], zero-padded, under their official names."""

    input_ids: Ids
    input_mask: Ids
    segment_ids: Ids
    width: int
    """The benchmark's sequence length: what a fixed-shape runtime pads to, and an answer's length."""

    @property
    def columns(self) -> tuple[Ids, Ids, Ids]:
        """All three, in the order of `official.INPUTS`."""
        return self.input_ids, self.input_mask, self.segment_ids

    def padded_to(self, length: int) -> Batch:
        """The same batch with longer rows. Raises InputError if a row is longer than that."""
        more = length - self.input_ids.shape[1]
        if more < 0:
            raise InputError(
                f"the model takes {length} tokens, a sample has {self.input_ids.shape[1]}: "
                "use a model of the benchmark's sequence length, or a smaller max_seq_length"
            )
        ids, mask, segments = (np.pad(column, ((0, 0), (0, more))) for column in self.columns)
        return Batch(ids, mask, segments, self.width)


class Dataset:
    """The windows of `data/dev-v1.1.json`, made with `vocab.txt` beside it (see `contracts.Dataset`)."""

    def __init__(
        self, folder: Path, *, max_seq_length: int = 384, max_query_length: int = 64, doc_stride: int = 128
    ) -> None:
        """Lengths in tokens; the defaults are the benchmark's. Raises InputError that names the file and the fault."""
        self.max_seq_length = max_seq_length
        self.questions = read_squad(folder / "data" / "dev-v1.1.json")
        tokenizer = Tokenizer(_vocabulary_of(folder))
        self.features = build_features(self.questions, tokenizer, max_seq_length, max_query_length, doc_stride)
        if not self.features:
            file = folder / "data" / "dev-v1.1.json"
            raise InputError(f"{file}: no context has a token, so there is no sample. Fetch dev-v1.1.json again")
        self._lengths = np.array([len(feature.ids) for feature in self.features])
        self._contexts = np.array([feature.context_at for feature in self.features])

    @property
    def name(self) -> str:
        return "SQuAD v1.1"

    @property
    def total_count(self) -> int:
        return len(self.features)

    @property
    def performance_count(self) -> int:
        """All: the official set takes 20 MB."""
        return len(self.features)

    def load(self, indices: Sequence[int]) -> None:
        """Nothing to do: reading the file made every window."""

    def unload(self, indices: Sequence[int]) -> None:
        """Nothing to do."""

    def gather(self, indices: Ids) -> Batch:
        """Pads to the longest of the batch only: real windows fill half of 384 tokens on average,
        and a backend whose model has a fixed length pads on with `Batch.padded_to`."""
        lengths = self._lengths[indices]
        positions = np.arange(lengths.max())
        present = positions < lengths[:, None]
        ids = np.zeros(present.shape, np.int64)
        ids[present] = np.concatenate([self.features[index].ids for index in indices.tolist()])
        segments = present & (positions >= self._contexts[indices][:, None])
        return Batch(ids, present.astype(np.int64), segments.astype(np.int64), self.max_seq_length)

    def costs(self, indices: Ids) -> Ids:
        """Tokens of each window."""
        lengths: Ids = self._lengths[indices]
        return lengths


def _vocabulary_of(folder: Path) -> dict[str, int]:
    """`vocab.txt`. Raises InputError if it is not as long as the model's table of embeddings."""
    path = folder / "data" / "vocab.txt"
    vocabulary = read_vocabulary(path)
    lines, size = max(vocabulary.values()) + 1, read_config(folder / "model" / FILE).vocab_size
    if lines != size:
        raise InputError(f"{path}: {lines} pieces, but the model knows {size}. Fetch the vocab.txt of the model again")
    return vocabulary


def build_features(
    questions: Sequence[Question],
    tokenizer: Tokenizer,
    max_seq_length: int,
    max_query_length: int,
    doc_stride: int,
) -> list[Feature]:
    """The windows of all questions, in order; a context without tokens has none. Lengths in tokens.

    Raises InputError if the lengths leave no room for context or windows would skip tokens.
    """
    room = max_seq_length - max_query_length - 3  # [CLS] and two [SEP]
    if not 0 < doc_stride <= room:
        raise InputError(
            f"doc_stride {doc_stride} must be between 1 and the {room} context tokens that max_seq_length "
            f"{max_seq_length} leaves beside max_query_length {max_query_length}: change one of the three"
        )
    features: list[Feature] = []
    words: tuple[str, ...] | None = None
    for number, question in enumerate(questions):
        if question.words is not words:  # questions of one paragraph follow each other
            words = question.words
            pieces, origins = _pieces_of_words(words, tokenizer)
        if not pieces:
            continue
        query = tokenizer.pieces(question.text)[:max_query_length]
        room = max_seq_length - len(query) - 3
        spans = window_spans(len(pieces), room, doc_stride)
        best = best_windows(len(pieces), spans)
        for window, (start, end) in enumerate(spans):
            tokens = ["[CLS]", *query, "[SEP]", *pieces[start:end], "[SEP]"]
            features.append(
                Feature(
                    question=number,
                    ids=np.array([tokenizer.ids[token] for token in tokens], np.int32),
                    context_at=len(query) + 2,
                    pieces=tuple(pieces[start:end]),
                    words=tuple(origins[start:end]),
                    is_max_context=tuple((best[start:end] == window).tolist()),
                )
            )
    return features


def _pieces_of_words(words: Sequence[str], tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    """All WordPieces of a context, and the index of the word that each came from."""
    pieces: list[str] = []
    origins: list[int] = []
    for index, word in enumerate(words):
        parts = tokenizer.pieces(word)
        pieces += parts
        origins += [index] * len(parts)
    return pieces, origins


def window_spans(length: int, room: int, stride: int) -> list[tuple[int, int]]:
    """[start, end) of the windows over `length` tokens, each `room` long at most."""
    spans = [(0, min(length, room))]
    while spans[-1][1] < length:
        start = spans[-1][0] + min(room, stride)
        spans.append((start, min(length, start + room)))
    return spans


def best_windows(length: int, spans: Sequence[tuple[int, int]]) -> Ids:
    """Of each token, the window that shows most on its poorer side; the first where several do.

    The reference adds 0.01 * window length, so that a longer window wins between equal ones.
    """
    position = np.arange(length)
    scores = np.full((len(spans), length), -np.inf)
    for row, (start, end) in zip(scores, spans, strict=True):
        inside = position[start:end]
        row[start:end] = np.minimum(inside - start, end - 1 - inside) + 0.01 * (end - start)
    best: Ids = np.argmax(scores, axis=0)
    return best
