"""What stands in for the official files: made here, in the official formats, and read by the same code.

The miniature is a small trained RNN-T with synthesised speech; `synthetic` has the full sizes and random weights.
Neither is a benchmark result.
"""
