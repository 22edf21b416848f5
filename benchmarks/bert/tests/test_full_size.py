"""BERT-large's sizes, every official file format, against Hugging Face's model.

Seeded random weights, one text of 384 tokens beside one of 100, FP32. The greatest difference of a logit,
measured on CPU with all 24 layers, 334 M parameters: ONNX Runtime 4e-6, PyTorch 3e-6, TensorFlow 3e-6, of logits up
to 1.7: `BERT_LAYERS=24 nox -s tests-bert -- -k full_size`, a minute and 6 GB of memory. Daily 8 layers are computed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bench_bert import backend_onnxruntime, backend_pytorch, backend_tensorflow
from bench_bert.config import BertConfig, weight_shapes, write_config
from bench_bert.dataset import Batch
from bench_bert.standins.format_tensorflow import write_tensorflow
from bench_bert.standins.formats import write_onnx, write_pytorch
from bench_bert.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions

CONFIG = BertConfig(num_hidden_layers=int(os.environ.get("BERT_LAYERS", "8")))
BYTES = 4 * sum(math.prod(shape) for shape in weight_shapes(CONFIG).values())
LENGTHS = (384, 100)
TOLERANCE = 3e-5
TheirBert: Any = transformers.BertForQuestionAnswering  # has no types
TheirConfig: Any = transformers.BertConfig


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    return random_tensors(CONFIG, 1)


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(2)
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int64)
    segments = (np.arange(max(LENGTHS)) >= 12) * mask
    return Batch(rng.integers(1, CONFIG.vocab_size, mask.shape) * mask, mask, segments, width=384)


@pytest.fixture(scope="module")
def expected(tensors: dict[str, Any], batch: Batch) -> Any:
    """Hugging Face's logits [2, 384, 2]."""
    config = TheirConfig(**asdict(CONFIG), hidden_act="gelu", attn_implementation="eager")
    with torch.device("meta"):
        theirs = TheirBert(config)
    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    theirs.load_state_dict(state, strict=True, assign=True)
    theirs.bert.embeddings.position_ids = torch.arange(512)[None]  # left on the meta device, not in the state
    theirs.bert.embeddings.token_type_ids = torch.zeros(1, 512, dtype=torch.int64)
    columns = {"input_ids": batch.input_ids, "attention_mask": batch.input_mask, "token_type_ids": batch.segment_ids}
    with torch.inference_mode():
        output = theirs.eval()(**{name: torch.from_numpy(column) for name, column in columns.items()})
    return np.stack([output.start_logits.numpy(), output.end_logits.numpy()], axis=-1)


@pytest.mark.parametrize(
    ("runtime", "file", "write"),
    [
        (backend_onnxruntime, "model.onnx", write_onnx),
        (backend_pytorch, "model.pytorch", write_pytorch),
        (backend_tensorflow, "model.pb", write_tensorflow),
    ],
)
def test_equals_transformers(
    runtime: Any,
    file: str,
    write: Callable[..., None],
    tensors: dict[str, Any],
    batch: Batch,
    expected: Any,
    tmp_path: Path,
) -> None:
    write_config(tmp_path / "bert_config.json", CONFIG)
    write(tmp_path / file, CONFIG, tensors)
    assert BYTES < (tmp_path / file).stat().st_size < 1.01 * BYTES
    backend = runtime.Backend(BackendOptions(tmp_path, threads=2))
    backend.load()
    (tmp_path / file).unlink()  # up to 1.3 GB, which pytest would keep
    answers = backend.predict(batch)
    backend.close()
    difference = max(np.abs(answers[row, :n] - expected[row, :n]).max() for row, n in enumerate(LENGTHS))
    print(f"{file}: greatest logit {np.abs(expected).max():.1f}, greatest difference {difference:.1e}")
    assert np.abs(expected[0]).max() > 0.5, "logits large enough for the tolerance to mean something"
    assert difference < TOLERANCE
