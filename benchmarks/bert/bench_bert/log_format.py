"""How answers lie in an accuracy log: other systems log other number formats, and starts before ends.

The official script is told (`--output_dtype`, `--output_transposed`). So can we be, and where we are not, a log that
may be of another format than ours is an error that asks: read as it is not, it would have a score like any other.
"""

from __future__ import annotations

import numpy as np

from bench_bert.dataset import Dataset
from bench_bert.postprocess import PADDING, Logits
from loadgen.contracts import Entry, InputError, Scoring

DTYPES = ("float32", "float16", "float64", "int8", "int16", "int32", "int64")
"""Those that the official script reads; the first is ours."""
_ENOUGH = 8
"""Samples from which a log shows its layout: by chance all of so many look right once in 65,000 logs."""


class Reader:
    """Reads answers as they come, and remembers what speaks for and against the layout in which it reads them."""

    def __init__(self, dataset: Dataset, at: Scoring) -> None:
        """Raises InputError for a number format that no log of this benchmark has."""
        if at.dtype and at.dtype not in DTYPES:
            raise InputError(f"--dtype {at.dtype!r}: use one of {', '.join(DTYPES)}")
        self._dataset, self._asked = dataset, bool(at.dtype or at.transposed)
        self._dtype, self._transposed = np.dtype(at.dtype or DTYPES[0]), at.transposed
        self._seen = self._fits = self._would_fit = 0

    def logits(self, entry: Entry) -> Logits:
        """[max_seq_length, 2] of one answer; a shorter one is filled up with PADDING, as the official script does.

        Raises InputError that names the sample if the answer is not its logits, or may be of another number format.
        """
        size, length = self._dtype.itemsize, len(self._dataset.features[entry.index].ids)
        count, rest = divmod(len(entry.data), 2 * size)
        if rest or not count:
            raise InputError(
                f"sample {entry.index}: {len(entry.data)} bytes are not a list of (start, end) {self._dtype} pairs of "
                f"{2 * size} bytes each; the log is damaged, of another benchmark or of another --dtype"
            )
        self._check_count(entry, count, length)
        values = np.frombuffer(entry.data, self._dtype).astype(np.float32)
        pairs, columns = values.reshape(-1, 2), values.reshape(2, -1).T
        read, other = (columns, pairs) if self._transposed else (pairs, columns)
        if not np.isfinite(read[:length]).all():
            raise InputError(f"sample {entry.index}: the answer holds a logit that is not finite; check the backend")
        self._remember(read, other, length)
        return np.pad(read, ((0, self._dataset.max_seq_length - count), (0, 0)), constant_values=PADDING)

    def _check_count(self, entry: Entry, count: int, length: int) -> None:
        """Would the answer be as well one of 16 bits, of half the positions?"""
        longest = self._dataset.max_seq_length
        if count > longest:
            raise InputError(
                f"sample {entry.index}: {count} positions, at most {longest} expected; "
                "the log is of another sequence length, or of another --dtype"
            )
        if not self._asked and (count < length or (2 * count == longest and count != length)):
            raise InputError(
                f"sample {entry.index}: {len(entry.data)} bytes are {count} pairs of float32 or {2 * count} of "
                f"float16, and the sample has {length} tokens: say which it is, --dtype float32 or --dtype float16"
            )

    def _remember(self, read: Logits, other: Logits, length: int) -> None:
        """A trained model's best start and end are tokens, never padding; read in the wrong layout, often padding."""
        if 2 * length <= len(read):
            self._seen += 1
            self._fits += int((read.argmax(axis=0) < length).all())
            self._would_fit += int((other.argmax(axis=0) < length).all())

    def check_layout(self) -> None:
        """Raise InputError if all answers that were read make sense in the other layout, and many do not in this."""
        if (
            not self._asked
            and self._seen >= _ENOUGH
            and self._would_fit == self._seen
            and self._fits < 0.9 * self._seen
        ):
            raise InputError(
                f"{self._seen - self._fits} of {self._seen} short samples have their best start or end on padding, and "
                "none if all starts come before all ends: say --transposed if they do, --dtype float32 if they do not"
            )
