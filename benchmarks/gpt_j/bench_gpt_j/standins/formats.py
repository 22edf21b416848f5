"""Writes the official data's format; weights are `loadgen.harness.runtimes.safetensors`'s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bench_gpt_j.official import INSTRUCTION
from bench_gpt_j.standins.generate import Example
from loadgen.harness.files import whole_file


def write_data(path: Path, examples: Sequence[Example]) -> None:
    """`cnn_eval.json` as the reference's download writes it: UTF-8 without escapes, indented by 4."""
    rows = [{"instruction": INSTRUCTION, "input": one.article, "output": one.summary} for one in examples]
    with whole_file(path) as part:
        part.write_text(json.dumps(rows, ensure_ascii=False, indent=4), encoding="utf-8")
