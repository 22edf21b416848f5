"""The ranges that 8-bit inputs of linear layers need: measured in FP32 on samples that are not scored."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bench_bert.dataset import Batch


def activation_ranges(model: Path, batches: Iterable[Batch]) -> dict[str, float]:
    """Layer name -> greatest absolute input of a token, for each linear layer of the encoder.

    model: a `model.onnx` of `formats.write_onnx`. Rounded to 3 digits, so that machines agree. Needs onnx
    and onnxruntime.
    """
    import onnx
    import onnxruntime

    document = onnx.load(model)
    products = [node.input for node in document.graph.node if node.op_type == "MatMul"]
    layers = {w.removesuffix(".weight"): x for x, w in products if ".layer." in w and w.endswith(".weight")}
    tensors = sorted(set(layers.values()))
    document.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in tensors)  # 1: float32
    session = onnxruntime.InferenceSession(document.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [node.name for node in session.get_inputs()]
    greatest = dict.fromkeys(tensors, 0.0)
    for batch in batches:
        present = batch.input_mask != 0
        values = session.run(tensors, {name: getattr(batch, name) for name in inputs})
        for name, value in zip(tensors, values, strict=True):
            greatest[name] = max(greatest[name], float(np.abs(value[present]).max()))
    return {layer: float(f"{greatest[tensor]:.3g}") for layer, tensor in layers.items()}
