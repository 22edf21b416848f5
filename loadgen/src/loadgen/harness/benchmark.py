"""The description of one benchmark: a frozen literal that `bench_<name>/benchmark.py` writes.

Names of code are text, `"module:name"`, imported when first used, so that help stays instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from loadgen.settings import Scenario


@dataclass(frozen=True)
class BackendSpec:
    """One backend on offer, and its own defaults."""

    name: str
    """`"module:Class"`, built as `Class(BackendOptions)`: a `Backend`, or a `TokenBackend`."""
    extra: str = ""
    """The extra in the benchmark's pyproject that installs what it imports; empty: nothing more is needed."""
    dtypes: tuple[str, ...] = ("float32",)
    """Those it computes in; the first is the default."""
    devices: tuple[str, ...] = ("cpu",)
    """Kinds of devices, `cpu` or `cuda`; the first is the default."""
    batch: int = 8
    """Most samples of a batch, unless `--batch` says otherwise."""
    cost_rule: Literal["padded", "packed"] = "padded"
    """What a batch costs: its longest sample's cost times its size, or the sum of all."""
    spreads: bool = False
    """Can one model lie on several devices (`--gpus-per-worker`)?"""
    baseline: str = ""
    """`"module:function"`, called as `baseline(backend, batch)` with a batch of one: what `speed` compares with, as the
    reference app computes. Empty: `submit`, or the steps of one request."""
    file: str = ""
    """The file below `model/` that it reads in its default dtype, which `Profile.weights` makes if it is missing."""


@dataclass(frozen=True)
class Profile:
    """Where a profile's files come from. All profiles run the same code on the same formats."""

    summary: str
    """One line for `--help` and the report."""
    prepare: str
    """`"module:function"` called as `prepare(folder)`; makes `folder/data` and `folder/model` in
    the official on-disk formats if they are not there yet, or raises an InputError that says how to get them."""
    weights: str = ""
    """`"module:function"` called as `weights(file)` for a file of `model/` that a backend wants and that `prepare` did
    not make (`loadgen.harness.standins.provide`). Empty: all files are there."""
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the dataset, after its folder."""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Reaches the backend as `BackendOptions.extra`."""
    reference: Mapping[str, float] = field(default_factory=dict)
    """The FP32 score of this profile's model, measured, for each judged metric; empty: the rules' reference."""
    limits: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Lowest and highest score that passes, where the rules' share of `reference` is not what this profile needs."""
    settings: Mapping[Scenario, Mapping[str, Any]] = field(default_factory=dict)
    """`TestSettings` fields that replace the rules' (short durations of the miniature)."""
    is_official: bool = False
    """Only official weights and data can give a benchmark result."""
    assets: str = ""
    """`"module:NAME"` of a sequence of `loadgen.harness.assets.Asset`: the files that `fetch` gets."""
    samples: int = 0
    """Samples of the data set, which an accuracy test takes once; 0: not known before it is read."""
    disk_gb: float = 0.0
    """GB of the files that a run makes in the profile's folder, official ones not counted; 0: not known."""
    answer_bytes: int = 0
    """Of an answer, for the room that accuracy logs take; 0: not known. A run asks the dataset (`SizesAnswers`)."""
    gflop: float = 0.0
    """Billions of operations of an average sample, additions and multiplications; 0: not known."""
    memory_gb: float | str = 0.0
    """GB (1e9 bytes) that a run takes, of the device's memory if it has its own; 0: not known. Or
    `"module:function"`, called as `memory_gb(backend, dtype, batch, device)`; device: `cpu` or `cuda`."""


@dataclass(frozen=True)
class Benchmark:
    """One model's benchmark."""

    name: str
    """Folder, nox session and image."""
    title: str
    model: str
    """Its key in `loadgen.rules` (the LoadGen model key)."""
    scenarios: tuple[Scenario, ...]
    dataset: str
    """`"module:Class"`, built as `Class(folder, **profile.dataset_options)`."""
    backends: Mapping[str, BackendSpec]
    """The first is the default."""
    postprocess: str
    """Module with `encode` (see `loadgen.contracts.Encode`) and `decode(bytes) -> output`."""
    accuracy: str
    """Module with `score(entries, dataset, at) -> Mapping[str, float]`: an iterable of `Entry`, each sample of the
    dataset once, in any order, read as it is scored; the dataset; a `Scoring`."""
    profiles: Mapping[str, Profile]
    """The first is the default."""
    scoring: tuple[str, ...] = ()
    """Options of the command `accuracy` that its metric follows, and which are refused otherwise: of `Scoring` dtype,
    transposed, max_examples, and `partial`, a log of a part of the samples."""
    system: str = "loadgen.harness.serving:BatchingSystem"
    """`"module:Class"` of a `SystemUnderTest`, built as this one is: for batching and threads of your own."""
    train: str = ""
    """`"module:function"` that trains the miniature, called as `train(arguments)` with the words of a
    command line; it knows `--output FILE` and `--device cpu|cuda`. Empty: there is none."""
    train_extra: str = ""
    """The extra that it needs."""
