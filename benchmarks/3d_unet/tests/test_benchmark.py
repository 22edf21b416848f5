"""The benchmark as the command line sees it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from bench_3d_unet import assets
from bench_3d_unet.benchmark import BENCHMARK
from bench_3d_unet.kits import IMAGING, SEGMENTATION
from bench_3d_unet.official import CASES, CHECKPOINT, COPY, ONNX, SAVED_MODEL, TENSORFLOW
from loadgen.contracts import InputError
from loadgen.harness.cli import invoke
from loadgen.harness.conformance import Check, conformance
from loadgen.harness.plan import Request, resolve
from loadgen.settings import Scenario


@pytest.mark.parametrize("check", conformance(BENCHMARK), ids=str)
def test_conformance(check: Check, tmp_path: Path) -> None:
    check(tmp_path)
