"""The official weights' format: beside torchsnapshot in both directions, and what is said of a damaged folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench_dlrm_v2.config import DlrmConfig, weight_shapes
from bench_dlrm_v2.official import METADATA
from bench_dlrm_v2.snapshot import Snapshot
from bench_dlrm_v2.standins.formats import write_snapshot
from loadgen.contracts import InputError

Document = dict[str, Any]


@pytest.fixture(scope="module")
def theirs(golden: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote with torchsnapshot: tensors sharded, replicated and each process's own, some of them in
    one file with others, one shard in several pieces."""
    folder = tmp_path_factory.mktemp("theirs")
    for name, content in golden["torchsnapshot"]["written by torchsnapshot"].items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(bytes.fromhex(content))
    return folder


@pytest.fixture
def ours(made: Any, tmp_path: Path) -> Path:
    config = made.CONFIGS["small"]
    write_snapshot(tmp_path / "ours", config, made.drawn(weight_shapes(config), 3), made.LAYOUT)
    return tmp_path / "ours"


def test_reads_what_torchsnapshot_writes(theirs: Path, made: Any) -> None:
    expected = made.drawn(made.REPLICATED | made.OWN, 7) | made.drawn(made.SHARDED, 8)
    snapshot = Snapshot(theirs)
    assert snapshot.shapes == {name: value.shape for name, value in expected.items()}
    assert [piece.first for piece in snapshot.pieces["model.large.weight"]] == [0, 6, 11, 17]
    for name, value in expected.items():
        assert (snapshot.read(name) == value).all(), name


def test_reads_it_listed_as_yaml_too(theirs: Path, made: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(theirs, tmp_path / "yaml")
    document = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(yaml.safe_dump(document))
    assert (Snapshot(folder).read("model.dense.bias") == Snapshot(theirs).read("model.dense.bias")).all()


def test_writes_what_torchsnapshot_has_read(ours: Path, made: Any, golden: Any) -> None:
    """`make_golden.py` let it read these very bytes, and every tensor was right."""
    assert made.digest(ours) == golden["torchsnapshot"]["read by torchsnapshot"]
    kinds = {name.split("/")[0] for name in made.files(ours)}
    assert kinds == {METADATA, "batched", "replicated", "sharded"}, "every kind of file is among them"


def test_reads_back_what_it_writes(ours: Path, made: Any) -> None:
    config = made.CONFIGS["small"]
    snapshot = Snapshot(ours)
    assert snapshot.config == config
    for name, value in made.drawn(weight_shapes(config), 3).items():
        assert (snapshot.read(name) == value).all(), name
    assert isinstance(snapshot.pieces["model.over_arch.model.1.bias"][0].map(), np.memmap), "nothing is read ahead"


def test_the_official_layout(tmp_path: Path) -> None:
    """Five tables of 40,000,000 rows over 8 ranks, in pieces of 512 MiB; files are listed and none is written."""
    write_snapshot(tmp_path, DlrmConfig(), {})
    assert [file.name for file in tmp_path.rglob("*")] == [METADATA]
    snapshot = Snapshot(tmp_path)
    assert snapshot.config == DlrmConfig()
    pieces = next(pieces for name, pieces in snapshot.pieces.items() if "t_cat_0." in name)
    assert len(pieces) == 40
    firsts = [0, 1048576, 2097152, 3145728, 4194304, 5000000, 6048576]
    assert [piece.file.name.split("_")[-2] for piece in pieces[:7]] == list(map(str, firsts))
    assert pieces[0].end == 512 << 20


def edit(change: Callable[[Document], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / METADATA).read_text())
        change(document)
        (folder / METADATA).write_text(json.dumps(document))

    return apply


def first_file(folder: Path, kind: str) -> Path:
    return min((folder / kind).rglob("*weight_0_0") if kind == "sharded" else (folder / kind).iterdir())


def cut(folder: Path) -> None:
    file = first_file(folder, "batched")
    file.write_bytes(file.read_bytes()[:-1])


def without_rank(document: Document, rank: int) -> None:
    for name in [name for name in document["manifest"] if name.startswith(f"{rank}/")]:
        del document["manifest"][name]


def shard(document: Document) -> Document:
    """The first one of a table on all ranks."""
    return next(e for e in document["manifest"].values() if len(e.get("shards", [])) > 1)["shards"][0]  # type: ignore[no-any-return]


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing shard": (lambda f: first_file(f, "sharded").unlink(), r"sharded/model/.*weight_0_0 is missing"),
    "a cut slab": (cut, r"batched/.* is cut off: [\d,]+ bytes, [\d,]+ or more expected"),
    "a rank less": (edit(lambda d: without_rank(d, 2)), "3 ranks wrote it, but lists those of 0 to 1"),
    "the first rank less": (edit(lambda d: without_rank(d, 0)), "3 ranks wrote it, but lists those of 1 to 2"),
    "another world size": (edit(lambda d: d.update(world_size=4)), "4 ranks wrote it, but lists those of 0 to 2"),
    "no world size": (edit(lambda d: d.pop("world_size")), "has no world_size and manifest"),
    "a shard less": (
        edit(lambda d: shard(d).update(offsets=[3, 0])),
        r"rows 0 to 2 of \S+t_cat_\d+\S+ are in no shard",
    ),
    "columns": (edit(lambda d: shard(d).update(offsets=[0, 4])), "is sharded by columns"),
    "pickled": (edit(lambda d: shard(d)["tensor"].update(serializer="torch_save")), "by torch_save, expected"),
    "doubles": (edit(lambda d: shard(d)["tensor"].update(dtype="torch.float64")), "holds torch.float64"),
    "a strange entry": (edit(lambda d: shard(d).pop("tensor")), r"the entry '0/model/.*' is no entry of torchsnapshot"),
    "a tensor less": (
        edit(lambda d: [d["manifest"].pop(n) for n in list(d["manifest"]) if n.endswith("crossnet.bias.1")]),
        "tensor 'model.inter_arch.crossnet.bias.1' .* is missing",
    ),
    "a list": (lambda f: (f / METADATA).write_text("[1]"), "neither JSON nor YAML of torchsnapshot"),
    "not text": (lambda f: (f / METADATA).write_bytes(b"\x00{\x01"), "neither JSON nor YAML"),
    "no metadata": (lambda f: (f / METADATA).unlink(), r".snapshot_metadata: no such file. Put the official folder"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_folder_is_refused(fault: str, ours: Path) -> None:
    damage, said = FAULTS[fault]
    damage(ours)
    with pytest.raises(InputError, match=said):
        opened(ours)


def opened(folder: Path) -> None:
    """As a backend does."""
    snapshot = Snapshot(folder)
    assert snapshot.config
    snapshot.check_files()
