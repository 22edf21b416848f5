"""The benchmark as the command line sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_llama2_70b import assets
from bench_llama2_70b.benchmark import BENCHMARK
from bench_llama2_70b.postprocess import decode
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance
from loadgen.logs import read_accuracy


@pytest.mark.usefixtures("at_llama_cpp")  # what the backend `endpoint` talks to
@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)
