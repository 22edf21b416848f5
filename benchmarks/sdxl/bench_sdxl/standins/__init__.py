"""What stands in for the official files: `miniature` (`generate`, `train`, `weights.npz`), `synthetic`, `formats`.

`SIZES` are the options of the miniature's dataset, here so that the literal imports nothing heavy.
"""

from types import MappingProxyType

SIZES = MappingProxyType({"count": 200, "feature_side": 75})
"""Captions; pixels of a side that its feature network resizes to, the fewest that an Inception-v3 takes."""
