"""The frame of a command that trains a miniature: its words, its device, its progress and its file."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat, TypeAlias

from loadgen.contracts import InputError
from loadgen.harness.files import whole_file

_EVERY_S = 10.0
Arrays: TypeAlias = "Mapping[str, Any]"
"""Name -> numpy array."""


def words(description: str | None, *, seed: int, steps: int) -> argparse.ArgumentParser:
    """The words that every training knows; a benchmark adds its own. seed, steps: those of the committed weights."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="train-mini", description=description, formatter_class=raw)
    parser.add_argument("--output", type=Path, default=Path("weights.npz"))
    parser.add_argument("--device", choices=["cpu", "cuda"], help="a GPU if there is one")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--steps", type=int, default=steps)
    return parser


def train_and_write(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    train: Callable[[argparse.Namespace], Arrays],
    committed: Path,
) -> None:
    """Parse, call `train` with a device that is there, and write what it returns.

    committed: the weights that the miniature uses. Raises InputError for a device that is not there, or an output
    folder, before it trains.
    """
    args = parser.parse_args(arguments)
    args.device = find_device(args.device)
    if not args.output.absolute().parent.is_dir():
        raise InputError(f"--output {args.output}: no such folder. Make it first")
    tensors = train(args)
    _write(args.output, tensors)
    print(f"written: {args.output}; {committed.parent.name}/{committed.name} is the file that the miniature uses")


def find_device(asked: str | None) -> str:
    """`cpu` or `cuda`, said on stdout; not asked for, a GPU if there is one. Raises InputError if it is not there."""
    import torch

    device = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device cuda: PyTorch {torch.__version__} sees no GPU; use --device cpu")
    print(f"training on {torch.cuda.get_device_name() if device == 'cuda' else device}", flush=True)
    return device


class Progress:
    """Says on stdout how far the training is: at the first step, every 10 s and at the last."""

    def __init__(self, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps, self._clock = steps, clock
        self._done = 0
        self._began = clock()
        self._said = float("-inf")

    def step(self, loss: SupportsFloat) -> None:
        """One step is done. The loss is read only when it is said: on a GPU that waits for it."""
        self._done += 1
        now = self._clock()
        if now - self._said < _EVERY_S and self._done < self._steps:
            return
        self._said = now
        seconds = now - self._began
        rate = self._done / seconds if seconds > 0 else float("inf")
        left = (self._steps - self._done) / rate
        print(
            f"step {self._done} of {self._steps}: loss {float(loss):.3f}, {rate:.3g} steps/s, "
            f"{seconds:.0f} s, {left:.0f} s to go",
            flush=True,
        )


def _write(path: Path, tensors: Arrays) -> None:
    import numpy as np

    with whole_file(path) as part, part.open("wb") as file:  # numpy adds its ending to a name, but not to a file
        np.savez(file, **tensors)
