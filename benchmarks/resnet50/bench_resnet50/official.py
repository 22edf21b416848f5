"""What the official weights files are called, and the tensors in them. Imports nothing, so that help is instant."""

ONNX = "resnet50_v1.onnx"
TENSORFLOW = "resnet50_v1.pb"
PYTORCH = "resnet50-19c8e357.pth"
NCNN = "resnet50_v1.param"
"""The weights themselves are in the `.bin` file beside."""

INPUT, CLASSES, PROBABILITIES = "input_tensor:0", "ArgMax:0", "softmax_tensor:0"
"""Of the ONNX file and of the TensorFlow graph."""
BACKGROUND = 1
"""Those two have one class more, the first: nothing of ImageNet. Their class n is ours n - 1."""

NCNN_INPUT, NCNN_OUTPUT = "in0", "out0"
NCNN_MAGIC = "7767517"
"""The first line of a `.param` file."""
