"""What can be done to a copy of a tree, each as a function that does it later."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

ORG = "closed/Org"
OFFLINE, SERVER = (f"{ORG}/results/box/resnet/{scenario}" for scenario in ("Offline", "Server"))
RUN, ACCURACY = f"{OFFLINE}/performance/run_1", f"{OFFLINE}/accuracy"
DETAIL, SCORES = f"{RUN}/mlperf_log_detail.txt", f"{ACCURACY}/accuracy.txt"
SERVER_DETAIL = f"{SERVER}/performance/run_1/mlperf_log_detail.txt"
SYSTEM = f"{ORG}/systems/box.json"
MEASURED = f"{ORG}/measurements/box/resnet/Offline"
MEASURED_JSON = f"{MEASURED}/box_abacus_Offline.json"
AUDITS = f"{ORG}/compliance/box/resnet/Offline"
LLAMA = f"{ORG}/results/box/llama2-70b-99/Server/performance/run_1/mlperf_log_detail.txt"
LLAMA_OFFLINE = f"{ORG}/results/box/llama2-70b-99/Offline/performance/run_1/mlperf_log_detail.txt"
TEST06 = f"{ORG}/compliance/box/llama2-70b-99/Server/TEST06"
SDXL = f"{ORG}/results/box/stable-diffusion-xl/Offline/accuracy"
STREAM = f"{ORG}/results/box/resnet/MultiStream/performance/run_1/mlperf_log_detail.txt"
POWER = f"{OFFLINE}/performance/power"


Change = Callable[[Path], None]


def write(path: str, text: str | bytes) -> Change:
    """Replace a file, or add one: by a new file, because the old one is linked to the tree that was copied."""

    def change(tree: Path) -> None:
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    return change


def edit(path: str, alter: Callable[[str], str]) -> Change:
    def change(tree: Path) -> None:
        before = (tree / path).read_text()
        after = alter(before)
        assert after != before
        write(path, after)(tree)

    return change


def without(path: str) -> Change:
    def change(tree: Path) -> None:
        place = tree / path
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return change


def log(path: str, **values: Any) -> Change:
    """Change values of a detail log; None: take the key out."""

    def alter(text: str) -> str:
        for key, value in values.items():
            line = re.search(rf'^:::MLLOG {{"key": "{re.escape(key)}", "value": (.*?)(, "time_ms".*)\n', text, re.M)
            assert line, key
            before = line[0][: line.start(1) - line.start()]
            after = "" if value is None else f"{before}{json.dumps(value)}{line[2]}\n"
            text = text[: line.start()] + after + text[line.end() :]
        return text

    return edit(path, alter)


def described(path: str = SYSTEM, **values: Any) -> Change:
    """Change fields of a JSON object; None: take the field out."""

    def alter(text: str) -> str:
        data = {**json.loads(text), **values}
        return json.dumps({key: value for key, value in data.items() if value is not None}, indent=1)

    return edit(path, alter)


def error_line(path: str) -> Change:
    line = (
        ':::MLLOG {"key": "error_runtime", "value": "it smoked", "time_ms": 1.0, "namespace": "mlperf::logging", '
        '"event_type": "POINT_IN_TIME", "metadata": {"is_error": true, "is_warning": false, "file": "x", "line_no": 1}}'
    )
    return edit(path, lambda text: f"{text}{line}\n")


def link(path: str) -> Change:
    return lambda tree: (tree / path).symlink_to("nowhere")


def huge(path: str) -> Change:
    def change(tree: Path) -> None:
        with (tree / path).open("wb") as file:
            file.truncate((50 << 20) + 1)

    return change


def both(*changes: Change) -> Change:
    def change(tree: Path) -> None:
        for one in changes:
            one(tree)

    return change


def moved(path: str, to: str) -> Change:
    def change(tree: Path) -> None:
        (tree / to).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(tree / path, tree / to)

    return change


def copy(path: str, to: str) -> Change:
    return lambda tree: shutil.copytree(tree / path, tree / to) and None


def session(**values: Any) -> Change:
    """Change fields of both descriptions of a power session, so that they go on telling the same."""
    return both(described(f"{POWER}/client.json", **values), described(f"{POWER}/server.json", **values))


def phases_later(by_s: float) -> Change:
    """The server's clock goes ahead of the client's."""

    def alter(text: str) -> str:
        data = json.loads(text)
        data["phases"]["testing"] = [[one[0] + by_s] for one in data["phases"]["testing"]]
        return json.dumps(data)

    return edit(f"{POWER}/server.json", alter)


def noted_again(change: Change, *names: str) -> Change:
    """A change of files of a session whose checksums are noted again, so that only the change is seen."""

    def again(tree: Path) -> None:
        change(tree)
        folder = tree / OFFLINE / "performance"
        for side in ("client", "server"):
            data = json.loads((folder / f"power/{side}.json").read_text())
            data["results"] |= {name: hashlib.sha1((folder / name).read_bytes()).hexdigest() for name in names}
            write(f"{POWER}/{side}.json", json.dumps(data))(tree)

    return again


def later_log(line: str, at: float) -> Change:
    """A line in PTDaemon's log, so many seconds after the load began."""

    def change(tree: Path) -> None:
        begin = re.search(r'"power_begin", "value": "([^"]+)"', (tree / DETAIL).read_text())
        assert begin
        moment = datetime.strptime(begin[1], "%m-%d-%Y %H:%M:%S.%f") + timedelta(seconds=at)
        stamp = moment.strftime("%m-%d-%Y %H:%M:%S.%f")[:-3]
        edit(f"{POWER}/ptd_logs.txt", lambda text: f"{text}{stamp} {line}\n")(tree)

    return noted_again(change, "power/ptd_logs.txt")
