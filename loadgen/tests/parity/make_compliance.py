"""Write `tests/golden/compliance_4_0.json`: what the official compliance scripts say of made logs.

    python tests/parity/make_compliance.py INFERENCE/compliance/nvidia tests/golden/compliance_4_0.json

INFERENCE: a checkout of the official suite at tag v4.0. The scripts are run as they are, each in a process of its own.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LINES = {
    "SingleStream": "Early stopping 90th percentile estimate: {}",
    "MultiStream": "Early stopping 99th percentile estimate: {}",
    "Server": "Completed samples per second    : {}",
    "Offline": "Samples per second: {}",
}
REFERENCES = {  # ns, or samples a second; streams on both sides of what is very short
    "SingleStream": (150_000, 200_000, 200_001, 10_000_000),
    "MultiStream": (1_600_000, 1_600_001),
    "Server": (100,),
    "Offline": (2000,),
}
SHARES = (0.7, 0.79, 0.81, 0.84, 0.86, 0.89, 0.905, 0.92, 0.94, 0.96, 1, 1.04, 1.06, 1.09, 1.11, 1.19, 1.21, 1.4)


def main(scripts: Path, output: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        golden = {
            "performance": list(pool.map(lambda case: judged_speed(scripts, case), speeds())),
            "answers": list(pool.map(lambda case: judged_answers(scripts, case), answers())),
            "tokens": list(pool.map(lambda case: judged_tokens(scripts, case), tokens())),
        }
    lines = [
        f'"{kind}": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]" for kind, cases in golden.items()
    ]
    output.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def speeds() -> Iterator[dict[str, Any]]:
    for test in ("TEST01", "TEST04", "TEST05"):
        for scenario, references in REFERENCES.items():
            for reference in references:
                yield {"test": test, "scenario": scenario, "reference": reference, "shares": SHARES}


def judged_speed(scripts: Path, case: dict[str, Any]) -> dict[str, Any]:
    """The case, and for each share of the reference P or F."""
    said = ""
    for share in case["shares"]:
        with tempfile.TemporaryDirectory() as name:
            files = [Path(name) / which for which in ("reference", "test")]
            for file, figure in zip(files, (case["reference"], round(case["reference"] * share)), strict=True):
                file.write_text(
                    f"SUT name : x\nScenario : {case['scenario']}\nMode     : PerformanceOnly\n"
                    f"{LINES[case['scenario']].format(figure)}\nResult is : VALID\n"
                )
            command = [f"{scripts}/{case['test']}/verify_performance.py", "-r", str(files[0]), "-t", str(files[1])]
            said += "P" if "TEST PASS" in run(command) else "F"
    return {**case, "said": said}


def answers() -> Iterator[dict[str, Any]]:
    """Accuracy log and test's log, each a list of (sample, answer in hexadecimal)."""
    whole = [[0, "0A0B"], [1, "0C0D"], [2, ""], [3, "0E"]]
    yield {"accuracy": whole, "logged": [[1, "0C0D"], [3, "0E"], [1, "0C0D"]]}
    yield {"accuracy": whole, "logged": [[1, "0C0F"]]}  # differs behind the first byte
    yield {"accuracy": whole, "logged": [[1, "0D0D"]]}
    yield {"accuracy": whole, "logged": [[2, ""], [1, "0C0D"]]}
    yield {"accuracy": whole, "logged": [[2, "0A"]]}
    yield {"accuracy": whole, "logged": [[1, ""]]}
    yield {"accuracy": whole, "logged": []}
    yield {"accuracy": whole, "logged": [[7, "0A"]]}  # unknown to the accuracy log
    yield {"accuracy": whole, "logged": [[7, "0A"], [7, "0B"], [0, "0A0B"]]}
    yield {"accuracy": whole, "logged": [[1, "0D0D"], [1, "0D0D"], [1, "0C0D"]]}  # compared with the one before
    yield {"accuracy": [*whole, [0, "0A0B"], [1, "0F0F"]], "logged": [[1, "0C0D"], [0, "0A0B"]]}
    drawn = random.Random(4)
    for _ in range(20):
        logs = [[[drawn.randrange(6), drawn.choice(["", "00", "0001", "0100"])] for _ in range(n)] for n in (9, 5)]
        yield {"accuracy": logs[0], "logged": logs[1]}


def judged_answers(scripts: Path, case: dict[str, Any]) -> dict[str, Any]:
    """The case, the official counts, and whether it passes."""
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / which for which in ("accuracy", "logged")]
        for file in files:
            file.write_text(
                json.dumps([{"seq_id": k, "qsl_idx": i, "data": d} for k, (i, d) in enumerate(case[file.name])])
            )
        said = run([f"{scripts}/TEST01/verify_accuracy.py", "-r", str(files[0]), "-t", str(files[1])])
    counts = {key: int(value) for key, value in re.findall(r"^(num_\w+) = (\d+)$", said, re.MULTILINE)}
    return {**case, "counts": counts, "passes": "TEST PASS" in said}


def tokens() -> Iterator[dict[str, Any]]:
    """(answer's tokens, those reported first, tokens counted) of each logged answer."""
    right = [[5, 6, 2], [5], 3]
    for wrong in (
        right,
        [[5, 6, 2, 2], [5], 4],
        [[2, 2], [2], 2],
        [[2], [2], 1],
        [[5, 2, 2], [5], 3],
        [[2, 2, 2], [2], 3],
        [[5, 6], [6], 2],
        [[5, 6], [5], 3],
        [[5, 6], [5, 6], 2],
        [[5, 6], [5, 7], 2],
    ):
        for scenario in ("Server", "Offline"):
            yield {"scenario": scenario, "answers": [right, wrong]}


def judged_tokens(scripts: Path, case: dict[str, Any]) -> dict[str, Any]:
    """The case, and the lines of verify_accuracy.txt."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entries = [
            {"seq_id": k, "qsl_idx": k, "data": as_hex(ids), "token_data": as_hex(first), "token_count": count}
            for k, (ids, first, count) in enumerate(case["answers"])
        ]
        (folder / "mlperf_log_accuracy.json").write_text(json.dumps(entries))
        run([f"{scripts}/TEST06/run_verification.py", "-c", name, "-o", name, "-s", case["scenario"]])
        return {**case, "lines": (folder / "TEST06" / "verify_accuracy.txt").read_text().splitlines()}


def as_hex(ids: list[int]) -> str:
    return b"".join(number.to_bytes(8, "little") for number in ids).hex().upper()


def run(command: list[str]) -> str:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
