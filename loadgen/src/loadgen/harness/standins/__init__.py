"""What stands in for official files: made once and whole (`making`), by `synthesize` and `train-mini` (`commands`).

`training` is the frame of a benchmark's own training script.
"""
