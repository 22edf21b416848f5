"""What a run needs, by arithmetic on its description and settings: nothing is loaded, and no content read."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadgen.contracts import Dataset, SizesAnswers
from loadgen.errors import InputError
from loadgen.harness.assets.asset import Asset, fault, part_of, substitute
from loadgen.harness.assets.ranges import Parts
from loadgen.harness.benchmark import Profile
from loadgen.harness.plan import Layered, Plan
from loadgen.settings import Mode, Scenario, TestSettings, effective


def memory_gb(plan: Plan) -> float:
    """Of the device's memory if it has its own; 0: not known."""
    needed = plan.profile.memory_gb
    if isinstance(needed, str):
        kind = plan.device.partition(":")[0]
        return float(plan.imported(needed, "the profile")(plan.backend_name, plan.dtype, plan.batch, kind))
    return needed


def assets(plan: Plan) -> list[Asset]:
    """The official files that the run reads."""
    if not plan.profile.assets:
        return []
    listed: Sequence[Asset] = plan.imported(plan.profile.assets, "the list of files")
    return [asset for asset in listed if asset.is_needed(plan.backend_name, plan.dtype)]


def obstacle(plan: Plan) -> str:
    """Why a run would be refused before its first test, in the words that it would use; empty: nothing is known.

    Asks what a run asks: the official profile's own check of its files, and the import of the backend.
    """
    try:
        if plan.profile.is_official:
            plan.imported(plan.profile.prepare, "the profile")(plan.folder)
        plan.imported(plan.backend.name, f"backend {plan.backend_name}", plan.backend.extra)
    except InputError as error:
        return str(error)
    return ""


def disk_bytes(profile: Profile, listed: Sequence[Asset], folder: Path) -> tuple[int, int]:
    """(bytes still to come into the folder, official files that are to come and whose size is not known)."""
    absent = [asset for asset in listed if not substitute(asset, folder)]
    missing = [asset for asset in absent if fault(asset, folder / asset.path, deep=False)]
    official = {folder / asset.path for asset in listed} | {part_of(folder / asset.path) for asset in listed}
    made = sum(_occupied(file) for file in folder.rglob("*") if file.is_file() and file not in official)
    to_make = max(0, round(profile.disk_gb * 1e9) - made)
    return sum(to_fetch(asset, folder) for asset in missing) + to_make, sum(not asset.bytes for asset in missing)


def log_bytes(tests: Sequence[Layered], samples: int, answer_bytes: int) -> int:
    """Of the accuracy logs that these tests write: two characters for each byte of an answer."""
    return 2 * samples * answer_bytes * sum(layers.settings.mode is Mode.AccuracyOnly for layers in tests)


def check_room(dataset: Dataset[Any], tests: Sequence[Layered], output: Path) -> None:
    """Raise InputError if the folder has no room for the accuracy logs. What an interrupted run left is overwritten."""
    if not isinstance(dataset, SizesAnswers):
        return
    needed = log_bytes(tests, dataset.total_count, dataset.answer_bytes)
    left = [output / layers.settings.scenario.name / "accuracy" / "mlperf_log_accuracy.json" for layers in tests]
    free = shutil.disk_usage(output).free + sum(log.stat().st_size for log in set(left) if log.is_file())
    if needed > free:
        raise InputError(
            f"{output}: the accuracy logs of this run take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: "
            "make room, name another folder by --output, or run a scenario at a time (--scenario)"
        )


def to_fetch(asset: Asset, folder: Path) -> int:
    """Bytes of a file that an earlier fetch has not got yet, as far as its size is known."""
    return max(0, asset.bytes - Parts(part_of(folder / asset.path)).done)


def _occupied(file: Path) -> int:
    """Bytes of the disk that it has taken: of a file of prepared images, whose length is there from the first, those
    that were written."""
    status = file.stat()
    return min(status.st_size, 512 * status.st_blocks) if hasattr(status, "st_blocks") else status.st_size


def seconds(settings: TestSettings, samples: int) -> float:
    """How long a test lasts at the latency or rate that its settings expect; samples: of the data set."""
    test = effective(settings, samples or 1, samples or 1)
    if settings.mode is Mode.AccuracyOnly:
        a_query = 1 if settings.scenario is Scenario.Offline else test.samples_per_query
        return samples / a_query / test.target_qps
    if settings.scenario is Scenario.Offline:
        return test.samples_per_query / test.target_qps
    queries = max(test.target_duration_ms / 1000 * test.target_qps, test.min_query_count)
    if settings.scenario is Scenario.Server and settings.sample_concatenate_permutation and samples:
        of = min(settings.performance_sample_count_override or samples, samples)
        queries = of * math.ceil(queries / of)  # each sample as often as the others, as a test goes on until it has
    return queries / test.target_qps
