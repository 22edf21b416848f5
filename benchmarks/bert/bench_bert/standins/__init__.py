"""What stands in for the official files: made here, in the official formats, and read by the same code.

The miniature is a small trained BERT with generated questions; `synthetic` has the full sizes and random weights.
Neither is a benchmark result.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SIZES: Mapping[str, int] = MappingProxyType({"max_seq_length": 96, "max_query_length": 24, "doc_stride": 32})
"""The miniature's window lengths in tokens: a quarter of the benchmark's 384, 64 (rounded up) and 128."""
