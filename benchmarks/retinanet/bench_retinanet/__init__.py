"""RetinaNet object detection on OpenImages, compatible with MLPerf Inference."""

import os

# PyTorch's OpenMP reads once, on being loaded, how threads wait for each other. By default they spin: where another
# process takes one of the cores, an image then lasts several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
