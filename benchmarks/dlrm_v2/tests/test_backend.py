"""The backend beside torchrec's recorded probabilities, in every number format, and what it refuses.

The score does not see how precise a backend is (`test_miniature.py`), so these values guard it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench_dlrm_v2.batch import Batch, Files
from bench_dlrm_v2.config import DlrmConfig, table_name, weight_shapes
from bench_dlrm_v2.dataset import Dataset
from bench_dlrm_v2.official import METADATA, SNAPSHOT
from bench_dlrm_v2.pytorch import backend as module_backend
from bench_dlrm_v2.pytorch import source as module_source
from bench_dlrm_v2.pytorch import tables
from bench_dlrm_v2.pytorch.backend import Backend
from bench_dlrm_v2.pytorch.source import Source
from bench_dlrm_v2.pytorch.tables import Mapped, Resident, quantised, spread, stored_bytes
from bench_dlrm_v2.standins.formats import OFFICIAL, write_snapshot
from bench_dlrm_v2.standins.synthetic import make_rows
from loadgen.contracts import BackendOptions, InputError

CPU = torch.device("cpu")
TOLERANCES = {"float32": 1e-6, "bfloat16": 0.03, "float16": 2e-3, "int8": 0.03}
"""Of probabilities that differ by 0.2; measured: 5e-10, 0.022, 0.001, 0.023."""
HASHED = {"tables": "bench_dlrm_v2.standins.synthetic:make_rows"}


@pytest.fixture(scope="module")
def model(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small` of `make_golden.py`, its larger tables in 9 pieces."""
    folder = tmp_path_factory.mktemp("model")
    config = made.CONFIGS["small"]
    write_snapshot(folder / SNAPSHOT, config, made.drawn(weight_shapes(config), 3), made.LAYOUT)
    return folder


def batch_of(made: Any, name: str = "small", counts: tuple[int, ...] = (48,)) -> Batch:
    dense, indices = made.pairs(made.CONFIGS[name])
    sizes = np.array(counts)
    return Batch(Files(dense, tuple(indices)), np.cumsum(sizes) - sizes, sizes)


def loaded(folder: Path, **options: Any) -> Backend:
    backend = Backend(BackendOptions(folder, threads=1, **options))
    backend.load()
    return backend


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_equals_torchrec(dtype: str, model: Path, made: Any, golden: Any) -> None:
    expected = np.array(golden["torchrec"]["small"]["probabilities"])
    answers = loaded(model, dtype=dtype).submit(batch_of(made)).result()
    assert answers.dtype == np.float32
    difference = np.abs(answers - expected).max()
    print(f"{dtype}: greatest difference {difference:.1e}")
    assert difference < TOLERANCES[dtype]
    assert dtype == "float32" or difference > 1e-5, "it was computed otherwise"


def test_equals_torchrec_at_official_sizes(made: Any, golden: Any, tmp_path: Path) -> None:
    """16.0 M dense parameters from the official layout's files; only the tables are short."""
    config = made.CONFIGS["official"]
    write_snapshot(tmp_path / SNAPSHOT, config, made.drawn(weight_shapes(config), 3), OFFICIAL)
    assert len(list((tmp_path / SNAPSHOT / "replicated" / "model").iterdir())) == 1
    answers = loaded(tmp_path).submit(batch_of(made, "official")).result()
    assert np.abs(answers - golden["torchrec"]["official"]["probabilities"]).max() < 1e-6


def test_merged_samples_are_answered_as_each_alone(model: Path, made: Any) -> None:
    backend, batch = loaded(model), batch_of(made, counts=(7, 30, 1, 10))
    together = backend.submit(batch).result()
    for start, count in zip(batch.starts.tolist(), batch.counts.tolist(), strict=True):
        one = Batch(batch.source, np.array([start]), np.array([count]))
        assert np.abs(backend.submit(one).result() - together[start : start + count]).max() < 1e-6


def test_a_large_batch_is_computed_in_parts(
    model: Path, made: Any, golden: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_backend, "_PAIRS_AT_ONCE", 10)
    sizes = []
    backend = loaded(model)
    backend.network.register_forward_hook(lambda network, given, found: sizes.append(len(found)))
    answers = backend.submit(batch_of(made, counts=(7, 30, 11))).result()
    assert np.abs(answers - golden["torchrec"]["small"]["probabilities"]).max() < 1e-6
    assert sizes == [10, 10, 10, 10, 8]


@pytest.mark.parametrize("copied_bytes", [0, 1 << 20])
def test_tables_in_pieces_are_read_where_they_lie(copied_bytes: int, model: Path, made: Any) -> None:
    source = Source(BackendOptions(model))
    mapped = Mapped(source, copied_bytes)
    assert max(len(source.mapped(number)) for number in range(26)) > 1
    weights = made.drawn(weight_shapes(source.config), 3)
    _, indices = made.pairs(source.config)
    sums = [weights[table_name(number)][ids].sum(axis=1) for number, ids in enumerate(indices)]
    found = mapped.bags([torch.from_numpy(ids) for ids in indices])
    assert np.abs(found.numpy() - np.concatenate(sums, axis=1)).max() < 1e-5


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.int8])
def test_tables_of_a_device_hold_what_the_files_do(stored: torch.dtype, model: Path, made: Any) -> None:
    source, chosen = Source(BackendOptions(model)), [5, 25, 0]
    resident = Resident(source, chosen, stored, CPU)
    weights = made.drawn(weight_shapes(source.config), 3)
    expected = np.concatenate([weights[table_name(number)] for number in chosen])
    values = resident.rows.float() if resident.scales is None else resident.rows * resident.scales[:, None]
    error = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.int8: 0.5 / 127}[stored]
    largest = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(values.numpy() - expected) <= error * largest + 1e-7).all()
    assert resident.rows.nbytes + (0 if resident.scales is None else resident.scales.nbytes) == stored_bytes(
        source.config, chosen, stored
    )
    _, indices = made.pairs(source.config)
    bags = resident.bags([torch.from_numpy(indices[number]) for number in chosen])
    sums = [weights[table_name(number)][indices[number]].sum(axis=1) for number in chosen]
    assert np.abs(bags.numpy() - np.concatenate(sums, axis=1)).max() <= 1e-5 + 4 * error * largest.max()


@pytest.mark.parametrize("table", [0, 25])
def test_tables_are_streamed_from_where_their_files_are_mapped(
    table: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No block is a copy, so a table is nowhere but in its file and on the device."""
    monkeypatch.setattr(module_source, "_BLOCK", 4)
    source = Source(BackendOptions(model))
    pieces = source.mapped(table)
    monkeypatch.setattr(source, "mapped", lambda number: pieces)
    blocks = list(source.blocks(table, CPU))
    assert [block.first for block in blocks] == np.cumsum([0, *(len(b.values) for b in blocks[:-1])]).tolist()
    assert sum(len(block.values) for block in blocks) == source.config.rows[table]
    assert len(blocks) > len(pieces) > 1
    for block in blocks:
        assert any(0 <= block.values.data_ptr() - piece.data_ptr() < piece.nbytes for piece in pieces)


def test_a_row_of_zeros_stays_zero() -> None:
    rows, scales = quantised(torch.zeros(2, 8))
    assert not rows.any()
    assert not scales.any()


def test_a_scale_that_is_forgotten_would_be_seen(
    model: Path, made: Any, golden: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "quantised", lambda v: (quantised(v)[0], torch.full((len(v),), 0.01)))
    answers = loaded(model, dtype="int8").submit(batch_of(made)).result()
    assert np.abs(answers - golden["torchrec"]["small"]["probabilities"]).max() > 3 * TOLERANCES["int8"]


def test_all_rows_of_the_official_tables() -> None:
    sizes = [
        stored_bytes(DlrmConfig(), range(26), stored) / 1e9 for stored in (torch.float32, torch.float16, torch.int8)
    ]
    assert sizes == pytest.approx([104.54, 52.27, 26.95], abs=0.01)


@pytest.mark.parametrize(("devices", "most"), [(1, 204.2e6), (2, 124e6), (4, 80e6), (8, 40.1e6)])
def test_tables_are_spread_evenly(devices: int, most: float) -> None:
    """One of 40,000,000 rows is never cut: 5 of them on 4 GPUs are 2 on one."""
    shares = spread(DlrmConfig(), devices)
    assert sorted(number for share in shares for number in share) == list(range(26))
    assert max(sum(DlrmConfig().rows[number] for number in share) for share in shares) <= most


def test_tables_that_are_made_need_no_file(made: Any, tmp_path: Path) -> None:
    config = made.CONFIGS["small"]
    dense = {name: v for name, v in made.drawn(weight_shapes(config), 3).items() if "t_cat" not in name}
    write_snapshot(tmp_path / SNAPSHOT, config, dense, made.LAYOUT)
    with pytest.raises(InputError, match="is missing"):
        loaded(tmp_path)
    backend = loaded(tmp_path, extra=HASHED)
    _, indices = made.pairs(config)
    first = make_rows(0, 0, config.rows[0], config.dim, CPU)[torch.from_numpy(indices[0]).long()].sum(1)
    bags = backend.tables.bags([torch.from_numpy(ids) for ids in indices])
    assert (bags[:, : config.dim] - first).abs().max() < 1e-6
    assert len(np.unique(backend.submit(batch_of(made)).result())) == 48


def test_made_rows_do_not_depend_on_where_they_begin() -> None:
    whole = make_rows(3, 39_000_000, 1000, 128, CPU)
    assert (make_rows(3, 39_000_400, 100, 128, CPU) == whole[400:500]).all()
    assert (make_rows(4, 39_000_000, 1000, 128, CPU) != whole).float().mean() > 0.99
    assert whole.abs().max() <= 0.1
    assert abs(float(whole.mean())) < 1e-3
    assert float(whole.std()) == pytest.approx(0.2 / 12**0.5, rel=0.01)
    assert abs(float((whole[1:] * whole[:-1]).mean())) < 1e-4, "neighbours have nothing in common"


def test_tables_that_do_not_fit_are_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "available_bytes", lambda: 10_000)
    said = r"the tables need 0.0 GB of cpu, 0.0 GB are free: use --profile capped"
    with pytest.raises(InputError, match=said):
        loaded(model, dtype="float16")
    loaded(model)  # they stay in their files


def test_the_advice_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * 10**9, 85 * 10**9))
    with pytest.raises(InputError, match=r"need 104.5 GB of cuda:0, 75.2 GB are free: use --dtype float16 or int8"):
        tables.check_room(stored_bytes(DlrmConfig(), range(26), torch.float32), torch.device("cuda:0"))
    tables.check_room(stored_bytes(DlrmConfig(), range(26), torch.float16), torch.device("cuda:0"))


def test_several_devices_are_gpus(model: Path) -> None:
    with pytest.raises(InputError, match="spread over GPUs only"):
        Backend(BackendOptions(model, devices=("cpu", "cpu")))


def with_row(made: Any, folder: Path, value: float) -> Path:
    config = made.CONFIGS["small"]
    weights = made.drawn(weight_shapes(config), 3)
    weights[table_name(7)][0, 0] = value
    write_snapshot(folder / SNAPSHOT, config, weights, made.LAYOUT)
    return folder


def test_weights_that_are_no_numbers_are_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{METADATA}: its weights give nan for zeros"):
        loaded(with_row(made, tmp_path, np.nan))


def test_values_beyond_float16_are_refused(made: Any, tmp_path: Path) -> None:
    folder = with_row(made, tmp_path, 1e5)
    with pytest.raises(InputError, match="table t_cat_7 has values beyond float16's 65,504"):
        loaded(folder, dtype="float16")
    loaded(folder, dtype="int8")


def narrow(config: DlrmConfig) -> DlrmConfig:
    return replace(config, bottom=(32, 16, 4))


def of_other_rows(config: DlrmConfig) -> DlrmConfig:
    return replace(config, rows=config.rows[:-1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (narrow, "the bottom ends 4 wide, tables have 8 columns|has shape"),
        (of_other_rows, "t_cat_25.weight' is missing"),
    ],
)
def test_tensors_of_two_models_are_refused(
    change: Callable[[DlrmConfig], DlrmConfig], said: str, made: Any, tmp_path: Path
) -> None:
    config = change(made.CONFIGS["small"])
    write_snapshot(tmp_path / SNAPSHOT, config, made.drawn(weight_shapes(config), 3), made.LAYOUT)
    with pytest.raises(InputError, match=said):
        loaded(tmp_path)


def test_data_of_another_model_is_refused(mini: Path, tmp_path: Path) -> None:
    """Tables of one row less than the data's indices need."""
    (tmp_path / "data").symlink_to(mini / "data")
    document = json.loads((mini / "model" / SNAPSHOT / METADATA).read_text())
    for name, entry in document["manifest"].items():
        if "t_cat_18." in name:
            entry["shards"][0]["sizes"][0] -= 1
            entry["shards"][0]["tensor"].update(byte_range=None)
    (tmp_path / "model" / SNAPSHOT).mkdir(parents=True)
    (tmp_path / "model" / SNAPSHOT / METADATA).write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"index 13 is outside of table t_cat_18, which has rows 0 to 12"):
        Dataset(tmp_path).load(range(5))
