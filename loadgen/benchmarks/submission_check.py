"""How long the check of a large submission takes, and how much memory: a tree of so many results, each with its
compliance tests, and one accuracy log of so many megabytes to be shortened.

    python loadgen/benchmarks/submission_check.py --results 500 --log-mb 2048

The logs are a real run's (ResNet in a datacenter by the rules of v4.0, on a fake clock), linked into every system of
the tree; each is read again for each result. Prints processor seconds, which other work on the machine counts little
in, seconds by the wall clock, and the most memory that the process held.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import runpy
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from loadgen.submission import page, shown, table
from loadgen.submission.check import check
from loadgen.submission.official import verdicts
from loadgen.submission.truncate import shorten

_MADE = Path(__file__).parents[1] / "tests" / "submission" / "conftest.py"
_MB = 1 << 20
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=int, default=500)
    parser.add_argument("--log-mb", type=int, default=2048, help="Of the accuracy log that is shortened; 0: none.")
    parser.add_argument("--folder", type=Path, help="Where to build the tree and leave it.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        tree = (asked.folder or Path(place)) / "tree"
        _timed("build one system", lambda: _one(tree))
        _timed("link the others", lambda: _others(tree, asked.results // 2))
        checked = _timed(f"check {asked.results} results", lambda: check(tree))
        print(f"  {len(checked.rows)} results, {len(checked.findings)} findings, passes: {checked.passes}")
        _timed("official verdicts", lambda: verdicts(checked))
        forms = (shown.text, shown.as_json, shown.sarif, page.check_page)
        _timed("text, JSON, SARIF, HTML", lambda: [form(checked) for form in forms])
        _timed("table", lambda: table.csv(table.lines(checked)))
        if asked.log_mb:
            log = _log(Path(place) / "mlperf_log_accuracy.json", asked.log_mb)
            _timed(f"shorten a log of {asked.log_mb} MB", lambda: shorten(log, log))


def _timed(what: str, work: Callable[[], T]) -> T:
    wall, processor = time.monotonic(), time.process_time()
    done = work()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # from KiB
    seconds = f"{time.process_time() - processor:8.2f} s of processor time, {time.monotonic() - wall:8.2f} s"
    print(f"{what:<28} {seconds}, at most {most:,.0f} MB")
    return done


def _one(tree: Path) -> None:
    made = runpy.run_path(str(_MADE))
    ran = made["run_folder"](tree.parent / "run", "resnet50", ["Server", "Offline"])
    made["built"](tree, [ran], "datacenter", "system0", _MADE.parent)


def _others(tree: Path, systems: int) -> None:
    """Each with its own description and measurements, and links to the first one's logs."""
    above = tree / "closed" / "Org"
    described = json.loads((above / "systems" / "system0.json").read_text())
    for number in range(1, systems):
        name = f"system{number}"
        for part in ("results", "compliance", "measurements"):
            shutil.copytree(above / part / "system0", above / part / name, copy_function=os.link)
        for file in list((above / "measurements" / name).rglob("system0_*.json")):
            file.rename(file.with_name(file.name.replace("system0", name)))
        (above / "systems" / f"{name}.json").write_text(json.dumps({**described, "system_name": name}))


def _log(file: Path, megabytes: int) -> Path:
    entry = b'{ "seq_id" : 0, "qsl_idx" : 0, "data" : "' + b"0" * (_MB - 64) + b'" },\n'
    with file.open("wb") as opened:
        for _ in range(megabytes):
            opened.write(entry)
    return file


if __name__ == "__main__":
    main()
