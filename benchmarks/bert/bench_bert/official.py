"""What the official weights files are called, and the tensors in them. Imports nothing, so that help is instant."""

ONNX = "model.onnx"
FAKE_QUANT = "bert_large_v1_1_fake_quant.onnx"
"""The int8 file."""
PYTORCH = "model.pytorch"
TENSORFLOW = "model.pb"

INPUTS = ("input_ids", "input_mask", "segment_ids")
"""Of the FP32 ONNX file and of the TensorFlow graph."""
FAKE_QUANT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""The int8 file's names for the same three."""
OUTPUTS = ("output_start_logits", "output_end_logits")
"""Of both ONNX files."""
LOGITS = "logits"
"""The TensorFlow graph's only output: start and end logits."""
