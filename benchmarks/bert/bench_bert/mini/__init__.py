"""The miniature: a small trained BERT and generated SQuAD data, written out in the official formats.

It runs the same code as the full benchmark. Its scores and speeds are no benchmark result.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SIZES: Mapping[str, int] = MappingProxyType({"max_seq_length": 96, "max_query_length": 24, "doc_stride": 32})
"""Window lengths in tokens: a quarter of the benchmark's 384, 64 (rounded up) and 128."""
