"""A picture of some answers, which a benchmark leaves beside its accuracy log: the report shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from loadgen.contracts import CONTACT_SHEET
from loadgen.harness.benchmark import Benchmark
from loadgen.harness.cli import invoke
from loadgen.harness.report.page import write_report


def test_it_is_part_of_the_page_and_of_its_test(benchmark_of: Callable[..., Benchmark], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert invoke(benchmark_of(), ["--output", str(out), "--quiet", "--scenario", "Offline"]) == 0
    assert "<img" not in (out / "report.html").read_text()
    for kind in ("accuracy", "performance"):
        (out / "Offline" / kind / CONTACT_SHEET).write_bytes(b"a picture")
    write_report(out)
    found = re.findall(r'<img src="(.*?)"', (out / "report.html").read_text())
    assert found == ["data:image/jpeg;base64,YSBwaWN0dXJl"]
