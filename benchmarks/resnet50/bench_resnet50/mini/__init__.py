"""The miniature: a small trained ResNet v1.5 and generated JPEG files, written out in the official formats.

It runs the same code as the full benchmark. Its scores and speeds are no benchmark result.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SIZES: Mapping[str, int] = MappingProxyType({"image": 64, "classes": 20})
"""Pixels of a side, and classes. As officially the short side is first resized to 8/7 of that: 73."""
