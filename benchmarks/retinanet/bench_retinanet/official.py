"""What the official files are called, and the tensors in them. Imports nothing, so that help is instant."""

ONNX = "resnext50_32x4d_fpn.onnx"
PYTORCH = "retinanet_model_10.pth"
"""A state dict under the key `model`."""
ARCHIVE = "retinanet_model_10.zip"
"""It holds that file."""
PICKLED = "resnext50_32x4d_fpn.pth"
"""The same weights as a pickled module."""

INPUT = "images"
BOXES, SCORES, LABELS = "boxes", "scores", "labels"
OUTPUTS = (BOXES, SCORES, LABELS)
"""Of the ONNX file, in its order."""

ANNOTATIONS = "annotations/openimages-mlperf.json"
ANNOTATIONS_ARCHIVE = "openimages-mlperf_annotations_2.1.json.zip"
"""It holds that file, under another name."""
CALIBRATION = "openimages_cal_images_list.txt"
IMAGE_FOLDERS = ("validation/data", ".")
"""Below the data's folder: where the official downloader puts the images, and where the official app looks for them."""
