"""What stands in for the official files: made here, in the official formats, and read by the same code.

The miniature is a small trained RetinaNet with drawn images; `synthetic` has the full sizes and random weights.
Neither is a benchmark result.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SIZES: Mapping[str, int] = MappingProxyType({"image": 160, "classes": 8})
"""Pixels of a side, and classes. The strides of 160 pixels are 8, 16, 32, 53 and 80: no powers of two either."""
