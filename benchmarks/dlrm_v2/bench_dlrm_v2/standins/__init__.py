"""What stands in for the official files: made here, in the official formats, and read by the same code.

The miniature is a small trained DLRM with generated clicks; `synthetic` has the full sizes and random weights.
Neither is a benchmark result.
"""
