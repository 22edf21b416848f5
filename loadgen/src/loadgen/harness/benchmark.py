"""The description of one benchmark: a frozen literal that `bench_<name>/benchmark.py` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadgen.settings import Scenario


@dataclass(frozen=True)
class Profile:
    """Where a profile's files come from. All profiles run the same code on the same formats."""

    summary: str
    """One line for `--help` and the report."""
    prepare: str
    """`"module:function"` called as `prepare(folder)`; makes `folder/data` and `folder/model` in
    the official on-disk formats if they are not there yet, or raises an error that says how to
    get them."""
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the dataset, after its folder."""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Reaches the backend as `BackendOptions.extra`."""
    reference: Mapping[str, float] = field(default_factory=dict)
    """The FP32 score of this profile's model, measured; empty: the rules' reference."""
    settings: Mapping[Scenario, Mapping[str, Any]] = field(default_factory=dict)
    """`TestSettings` fields that replace the rules' (short durations of the miniature)."""
    is_official: bool = False
    """Only official weights and data can give a benchmark result."""
    synthesize: str = ""
    """`"module:function"` called as `synthesize(folder, backend)` by the command of that name: makes ahead
    what a run with this backend would make, "" for every backend. Empty: `prepare` makes all."""
    assets: str = ""
    """`"module:NAME"` of a sequence of `loadgen.harness.assets.asset.Asset`: the files that `fetch` gets."""
    samples: int = 0
    """Samples of the data set, which an accuracy test takes once; 0: not known before it is read."""
    disk_gb: float = 0.0
    """GB of the files that a run makes in the profile's folder, official ones not counted; 0: not known."""
    memory_gb: float | str = 0.0
    """GB (1e9 bytes) that a run takes, of the device's memory if it has its own; 0: not known. Or
    `"module:function"`, called as `memory_gb(backend, dtype, batch)`."""


@dataclass(frozen=True)
class Benchmark:
    """One model's benchmark. Dotted names are imported when first used, so help stays instant."""

    name: str
    """Folder, nox session and image."""
    title: str
    model: str
    """Its key in `loadgen.rules` (the LoadGen model key)."""
    scenarios: tuple[Scenario, ...]
    dataset: str
    """`"module:Class"`, built as `Class(folder / "data", **profile.dataset_options)`."""
    backends: Mapping[str, str]
    """Backend name -> `"module:Class"`, built as `Class(BackendOptions)`. The first is the default."""
    postprocess: str
    """Module with `encode(outputs) -> (buffer, offsets)` and `decode(bytes) -> output`."""
    accuracy: str
    """Module with `score(entries, dataset) -> dict[str, float]`; entries are (index, bytes)."""
    profiles: Mapping[str, Profile]
    """Profile name -> profile. The first is the default."""
    system: str = "loadgen.harness.serving.batching:BatchingSystem"
    """`"module:Class"` of a `SystemUnderTest` that is built as this one is: for batching and threads of your own."""
    train: str = ""
    """`"module:function"` that trains the miniature, called as `train(arguments)` with words as of a
    command line; it knows `--output FILE` and `--device cpu|cuda`. Empty: there is none."""
