"""Stable Diffusion XL, text to image, on captions of COCO 2014, compatible with MLPerf Inference."""
