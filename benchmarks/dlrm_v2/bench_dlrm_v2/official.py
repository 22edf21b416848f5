"""What the official files are called, and the constants of their data. Imports nothing, so that help is instant."""

SNAPSHOT = "model_weights"
"""The folder of the weights, below `model/`."""
METADATA = ".snapshot_metadata"
"""The one file in it that lists all others."""

DENSE, SPARSE, LABELS = "day_23_dense", "day_23_sparse_multi_hot", "day_23_labels"
"""The data, without endings."""
SAMPLE = "_sample"
"""Follows these three names where a file holds validation rows only. Without it the first half of the rows is for
validation; calibration takes 128,000 of the second."""
TRACE = "dlrm_trace_of_aggregated_samples.txt"

TABLES = 26
DENSE_FEATURES = 13

# fmt: off
ROWS = (
    40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956, 405_282, 10, 2_209, 11_938,
    155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152, 12_973, 108, 36,
)
"""Of each table: 204,184,588 in all, 104.5 GB of float32 at 128 columns."""
HOTS = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)
"""Indices that a pair has into each table: 214 in all."""
# fmt: on
