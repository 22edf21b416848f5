"""What stands in for the official files: made here, in the official formats, and read by the same code.

The miniature is a small trained ResNet v1.5 with drawn images; `synthetic` has the full sizes and random weights.
Neither is a benchmark result.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SIZES: Mapping[str, int] = MappingProxyType({"image": 64, "classes": 20})
"""Pixels of a side, and classes. As officially the short side is first resized to 8/7 of that: 73."""
