"""Writes the official files of a model folder, from sizes and tensors."""

from __future__ import annotations

import json
from pathlib import Path

from bench_sdxl.tokenizer import BEGIN, END


def write_tokenizer(folder: Path, vocabulary: list[str], merges: list[tuple[str, str]], pad: str, length: int) -> None:
    """The four official files of a tokenizer's folder. vocabulary: pieces in the order of their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": pad}
    config = {**special, "model_max_length": length, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
