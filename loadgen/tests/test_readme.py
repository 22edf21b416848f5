"""The README's complete system is complete: it runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def example() -> str:
    blocks: list[str] = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) == 1
    return blocks[0]


def test_the_example_ends_valid_and_writes_the_official_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(example(), str(README), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.startswith("VALID ")
    assert "Result is : VALID" in (tmp_path / "logs" / "mlperf_log_summary.txt").read_text()
