"""Files that several tests read: the miniature, written once, and a server that we did not write with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench_llama2_70b.benchmark import MINI
from bench_llama2_70b.dataset import Dataset
from bench_llama2_70b.official import INDEX
from bench_llama2_70b.standins.miniature import CONFIG, prepare, read_tokenizer_bytes, read_weights, write_weights

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder, with its weights."""
    folder = tmp_path_factory.mktemp("mini")
    prepare(folder)
    write_weights(folder / "model" / INDEX)
    return folder


@pytest.fixture(scope="session")
def mini_dataset(mini: Path) -> Dataset:
    return Dataset(mini, **MINI.dataset_options)


@pytest.fixture(scope="session")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama.cpp's server with the miniature: its address."""
    import xllamacpp

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        from gguf_file import write_gguf
    file = tmp_path_factory.mktemp("gguf") / "mini.gguf"
    write_gguf(file, CONFIG, read_weights(), read_tokenizer_bytes())
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.model_alias = str(file), {"mini"}
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    settings.n_parallel, settings.n_gpu_layers = 16, 0
    settings.n_ctx = settings.n_parallel * CONFIG.max_position_embeddings
    settings.warmup, settings.verbosity, settings.cache_ram_mib = False, 0, 0
    for cores in (settings.cpuparams, settings.cpuparams_batch):
        cores.n_threads, cores.poll = 1, 0
    server: Any = xllamacpp.Server(settings)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def at_llama_cpp(llama_cpp: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment names that server."""
    monkeypatch.setenv("OPENAI_BASE_URL", llama_cpp)
    for name in ("OPENAI_API_KEY", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return llama_cpp
