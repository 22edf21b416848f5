"""Writes golden/*.json: what torchrec and torchsnapshot themselves make of weights that follow from a seed.

In an environment of its own, with this folder's package and loadgen on its path:

    pip install torch==2.13.0 numpy pyyaml rich
    pip install --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 torchsnapshot==0.1.0
    pip install tensordict==0.15.3 torchmetrics pyre-extensions==0.0.32 typing-inspect iopath pyvers cloudpickle tqdm \\
        packaging portalocker lazy-importer importlib-metadata aiofiles aiohttp nest-asyncio psutil
    python tests/make_golden.py

Half a minute. The tests need only the files.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_dlrm_v2.config import DlrmConfig, weight_shapes
from bench_dlrm_v2.official import ROWS
from bench_dlrm_v2.standins.formats import Layout, write_snapshot

FOLDER = Path(__file__).with_name("golden")
TINY_ROWS = tuple(min(rows, 20 + number) for number, rows in enumerate(ROWS))
CONFIGS = {
    "small": DlrmConfig(rows=TINY_ROWS, dim=8, bottom=(32, 16, 8), cross_layers=2, rank=12, top=(24, 16)),
    "official": DlrmConfig(rows=TINY_ROWS),  # but for the number of rows
}
HOTS = tuple(1 + number % 4 for number in range(26))
PAIRS = 48
LAYOUT = Layout(ranks=3, piece_rows=6, large_rows=30, batched_bytes=150)
SHARDED = {"model.large.weight": (22, 4), "model.other.weight": (9, 4)}
REPLICATED = {"model.dense.weight": (5, 6), "model.dense.bias": (5,)}
OWN = {"model.own.weight": (3, 2)}
WORLD = 2


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of which none is zero, and large enough to tell a difference."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape, np.float32) * np.float32(1.4 * (shape[-1] if len(shape) > 1 else 10) ** -0.5)
        for name, shape in shapes.items()
    }


def pairs(config: DlrmConfig) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.int32]]]:
    """dense [PAIRS, 13] and indices [PAIRS, hot] of each table."""
    rng = np.random.default_rng(5)
    dense = np.log(3 + rng.exponential(20.0, (PAIRS, config.dense))).astype(np.float32)
    return dense, [
        rng.integers(0, rows, (PAIRS, hot)).astype(np.int32) for rows, hot in zip(config.rows, HOTS, strict=True)
    ]


def files(folder: Path) -> dict[str, bytes]:
    """Path below the folder -> content."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def digest(folder: Path) -> str:
    """Of all names and contents."""
    return hashlib.sha256(b"".join(name.encode() + content for name, content in files(folder).items())).hexdigest()


def of_torchrec(config: DlrmConfig) -> dict[str, Any]:
    """Names and shapes of its state dict, and its probabilities."""
    import torch
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
    from torchrec.models.dlrm import DLRM_DCN, DLRMTrain

    tables = [
        EmbeddingBagConfig(name=f"t_cat_{k}", embedding_dim=config.dim, num_embeddings=rows, feature_names=[f"cat_{k}"])
        for k, rows in enumerate(config.rows)
    ]
    collection = EmbeddingBagCollection(tables=tables, device=torch.device("cpu"))
    top = [*config.top, 1]
    layers = config.cross_layers, config.rank
    model = DLRMTrain(DLRM_DCN(collection, config.dense, list(config.bottom), top, *layers)).eval()
    weights = drawn(weight_shapes(config), 3)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=True)
    dense, indices = pairs(config)
    features = KeyedJaggedTensor(
        keys=[f"cat_{k}" for k in range(len(indices))],
        values=torch.from_numpy(np.concatenate([ids.ravel() for ids in indices])),
        lengths=torch.tensor(np.repeat([ids.shape[1] for ids in indices], PAIRS)),
    )
    with torch.inference_mode():
        logits = model.model(torch.from_numpy(dense), features)
    return {
        "names": {name: list(value.shape) for name, value in model.state_dict().items()},
        "probabilities": [round(value, 9) for value in torch.sigmoid(logits).squeeze(1).tolist()],
    }


def _take(rank: int, folder: str, port: int) -> None:
    """One rank of a training that ends: half of each sharded tensor's rows, and copies of the others."""
    import torch
    import torch.distributed as dist
    from torch.distributed._shard import sharded_tensor
    from torch.distributed._shard.metadata import ShardMetadata
    from torchsnapshot import Snapshot, StateDict

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    state: dict[str, Any] = {name: torch.from_numpy(value) for name, value in drawn(REPLICATED | OWN, 7).items()}
    for name, value in drawn(SHARDED, 8).items():
        size = -(-len(value) // WORLD)
        begin, end = rank * size, min(len(value), (rank + 1) * size)
        part = torch.from_numpy(value[begin:end].copy())
        placed = ShardMetadata([begin, 0], list(part.shape), f"rank:{rank}/cpu")
        state[name] = sharded_tensor.init_from_local_shards([sharded_tensor.Shard(part, placed)], *value.shape)
    Snapshot.take(folder, {"model": StateDict(**state)}, replicated=["model/model.dense*"])
    dist.destroy_process_group()


def theirs() -> dict[str, str]:
    """The files that torchsnapshot writes from several processes, in hexadecimal."""
    os.environ |= {
        "TORCHSNAPSHOT_MAX_SHARD_SIZE_BYTES_OVERRIDE": "100",  # 6 rows of 16 bytes: several pieces a rank
        "TORCHSNAPSHOT_SLAB_SIZE_THRESHOLD_BYTES_OVERRIDE": "90",  # some are batched and some are not
    }
    with TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        ranks = [context.Process(target=_take, args=(rank, folder, 29_571)) for rank in range(WORLD)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise RuntimeError("a rank failed")
        return {name: content.hex() for name, content in files(Path(folder)).items()}


def read_by_them() -> str:
    """The digest of a folder that we wrote, after torchsnapshot has read every tensor of it right."""
    import torch
    from torchsnapshot import Snapshot

    config = CONFIGS["small"]
    tensors = drawn(weight_shapes(config), 3)
    with TemporaryDirectory() as folder:
        write_snapshot(Path(folder), config, tensors, LAYOUT)
        snapshot = Snapshot(folder)
        for name, value in tensors.items():
            found = snapshot.read_object(f"0/model/{name}", obj_out=torch.zeros(value.shape))
            if not np.array_equal(found.numpy(), value):
                raise RuntimeError(f"torchsnapshot reads another {name}")
        return digest(Path(folder))


def main() -> None:
    import torchrec
    import torchsnapshot

    torchrec_values = {name: of_torchrec(config) for name, config in CONFIGS.items()}
    _write("torchrec.json", {"torchrec": torchrec.__version__, **torchrec_values})
    snapshots = {"read by torchsnapshot": read_by_them(), "written by torchsnapshot": theirs()}
    _write("torchsnapshot.json", {"torchsnapshot": torchsnapshot.__version__, **snapshots})


def _write(name: str, content: dict[str, Any]) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
