"""ResNet-50 v1.5 image classification on ImageNet, compatible with MLPerf Inference."""
