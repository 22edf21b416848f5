"""ResNet-50 v1.5 image classification on ImageNet, compatible with MLPerf Inference."""

import os

# The OpenMP of PyTorch and ncnn reads once, on being loaded, how threads wait for each other. By default they spin:
# where another process takes one of the cores, an image then lasts 5 to 20 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
