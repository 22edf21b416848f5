"""Our load generator against the official wheel, on randomly drawn settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import cases
import coverage
import mirror
import official
import pytest


def test_drawn_cases(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """No difference in what is loaded, issued, scheduled, stopped, logged, derived, judged or printed."""
    seed, count = request.config.getoption("--seed"), request.config.getoption("--cases")
    table = coverage.Table()
    mismatches = []
    for k, case in enumerate(cases.draw_all(seed, count, official.REVISION)):
        outdir = tmp_path / str(k)
        seen = official.run(case, outdir)
        found = mirror.differences(case, seen)
        table.add(case, seen, found)
        if found:
            mismatches.append((k, case, found))
        shutil.rmtree(outdir)
    print(f"\nmlcommons-loadgen {official.VERSION}, seed {seed}:\n{table}")
    for k, case, found in mismatches[:5]:
        print(f"case {k}: {case}\n  " + "\n  ".join(found))
    assert not mismatches, f"{len(mismatches)} of {count} cases differ (seed {seed})"
