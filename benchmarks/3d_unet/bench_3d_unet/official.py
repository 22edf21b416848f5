"""What the official files are called, and which cases are measured. Imports nothing, so that help is instant."""

ONNX = "3dunet_kits19_128x128x128_dynbatch.onnx"
ONNX_ONE = "3dunet_kits19_128x128x128.onnx"
"""The same model for one window at a time; read where the other is not there."""
CHECKPOINT = "3dunet_kits19_pytorch_checkpoint.pth"
CHECKPOINT_KEY = "best_model_state_dict"
"""Where the weights are in it."""
TORCHSCRIPT = "3dunet_kits19_pytorch.ptc"
TENSORFLOW = "3dunet_kits19_128x128x128.tf"
"""A folder, a SavedModel; officially a zip file of this name and `.zip`."""
SAVED_MODEL = f"{TENSORFLOW}/saved_model.pb"
SIGNATURE = "serving_default"

INPUT, OUTPUT = "input", "output"
"""Of the ONNX files: windows [n, 1, 128, 128, 128], logits [n, 3, 128, 128, 128]."""

CLASSES = ("background", "kidney", "tumor")
"""A label is a position in this list."""

COPIED, COPY = "case_00185", "case_00400"
"""KiTS19 has no case 400: the benchmark measures case 185 twice, the second time under that name."""
CASES = (
    *("case_00000", "case_00003", "case_00005", "case_00006", "case_00012", "case_00024", "case_00034", "case_00041"),
    *("case_00044", "case_00049", "case_00052", "case_00056", "case_00061", "case_00065", "case_00066", "case_00070"),
    *("case_00076", "case_00078", "case_00080", "case_00084", "case_00086", "case_00087", "case_00092", "case_00111"),
    *("case_00112", "case_00125", "case_00128", "case_00138", "case_00157", "case_00160", "case_00161", "case_00162"),
    *("case_00169", "case_00171", "case_00176", COPIED, "case_00187", "case_00189", "case_00198", "case_00203"),
    *("case_00206", "case_00207", COPY),
)
"""`meta/inference_cases.json` of the reference: sample i is case i of these 43."""
