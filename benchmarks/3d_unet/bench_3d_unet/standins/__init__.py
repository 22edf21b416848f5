"""What stands in for the official files: made here, in the official formats, and read by the same code.

The miniature is a small trained 3D U-Net with generated phantoms; `synthetic` has the full sizes and random weights.
Neither is a benchmark result.
"""

WINDOW = 32
"""Voxels of a side of the miniature's window: a quarter of the benchmark's 128."""
CASES = tuple(f"case_{number}" for number in range(90_000, 90_016))
"""The miniature's: names that KiTS19 does not have, so that none of its files is ever overwritten."""
