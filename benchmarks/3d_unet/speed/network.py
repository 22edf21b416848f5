"""How fast the network and the sliding window are by themselves: random weights, one volume again and again.

`python speed/network.py --device cuda --dtype bfloat16 --sides 320 448 448` prints seconds a volume, windows a second
and the share of the arithmetic's limit, `--limit` in TFLOP/s. Nothing of it is a benchmark result.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench_3d_unet.benchmark import GFLOP
from bench_3d_unet.config import FILE, UNetConfig, write_config
from bench_3d_unet.dataset import Batch
from bench_3d_unet.official import CHECKPOINT
from bench_3d_unet.pytorch.backend import Backend
from bench_3d_unet.sliding_window import count
from bench_3d_unet.standins.formats import write_checkpoint
from bench_3d_unet.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions

GFLOP_A_WINDOW = GFLOP * 43 / 2761


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--sides", type=int, nargs=3, default=[192, 384, 384], help="voxels")
    parser.add_argument("--volumes", type=int, default=1, help="of a batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=0.0, help="TFLOP/s of the device")
    args = parser.parse_args()
    config = UNetConfig()
    rng = np.random.default_rng(0)
    batch = Batch([rng.standard_normal(args.sides, np.float32) for _ in range(args.volumes)])
    with TemporaryDirectory() as folder:
        write_config(Path(folder, FILE), config)
        write_checkpoint(Path(folder, CHECKPOINT), config, random_tensors(config, 1))
        backend = Backend(BackendOptions(Path(folder), (args.device,), args.dtype, args.threads))
        began = time.monotonic()
        print(backend.load(), f"loaded in {time.monotonic() - began:.1f} s", flush=True)
    windows = args.volumes * count(args.sides, config.window)
    for _ in range(args.repeats):
        began, worked = time.monotonic(), time.process_time()
        backend.submit(batch).result()
        seconds, worked = time.monotonic() - began, time.process_time() - worked
        share = f", {GFLOP_A_WINDOW * windows / seconds / 1e3 / args.limit:.1%} of the limit" if args.limit else ""
        print(
            f"{seconds / args.volumes:.3f} s a volume ({worked:.1f} s of processor time), "
            f"{windows / seconds:.1f} windows/s{share}",
            flush=True,
        )
    backend.close()


if __name__ == "__main__":
    main()
