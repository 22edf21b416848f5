"""Llama on PyTorch: a Hugging Face folder of any size of Llama 2, on one device or spread over several."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from bench_llama2_70b.config import LlamaConfig, read_config, weight_shapes
from bench_llama2_70b.dataset import Batch
from bench_llama2_70b.memory import SIZES, of_token, parameters
from bench_llama2_70b.official import CONFIG, INDEX
from bench_llama2_70b.pytorch import weights
from bench_llama2_70b.pytorch.engine import Engine
from bench_llama2_70b.pytorch.parallel import ALONE, Ranks, Share
from loadgen.contracts import I64, BackendOptions, InputError, Loaded, Tokens
from loadgen.harness.runtimes import safetensors
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.runtimes.checkpoints import check_shapes
from loadgen.harness.serving.paging import Room
from loadgen.harness.standins.making import provide

DTYPES = tuple(SIZES)
"""float8: matrices, keys and values in e4m3, the rest in bfloat16."""
_PAGE = 16
_MEMORY = 0.9
"""Share of a GPU's memory for weights and cache; the rest is for what a step computes."""
_UNUSED = "rotary_emb.inv_freq"
"""In older files: it follows from the config."""


class Backend:
    """See `loadgen.contracts.TokenBackend`. The first rank, and the others if there are several devices."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have."""
        for name in options.devices:
            runtime.find_device(replace(options, devices=(name,)), DTYPES)
        if "float8" in options.dtype and options.device != "cpu":
            _check_float8()
        self.options = options

    def load(self) -> Loaded:
        """Read the weights. Raises InputError naming file and tensor, or for devices whose memory is too small."""
        count = len(self.options.devices)
        config = read_config(self.options.model / CONFIG)
        if config.num_key_value_heads % count or config.intermediate_size % count:
            raise InputError(
                f"{count} devices: {config.num_key_value_heads} key-value heads and {config.intermediate_size} "
                "channels do not divide by that: use another --gpus-per-worker"
            )
        if "seed" not in self.options.extra:
            provide(self.options.model / INDEX, self.options)
        on_gpus = self.options.device != "cpu"
        build = partial(Rank, self.options)
        self.ranks = Ranks(build, count, on_gpus) if count > 1 else None
        self.rank = build(Share(0, count))
        about = runtime.loaded(torch.device(self.options.device), self.options.dtype)
        return replace(about, device=" + ".join(self.options.devices) if count > 1 else about.device)

    def room(self) -> int:
        """Slots of the batch that are free."""
        return self.rank.engine.planner.room()

    def add(self, requests: I64, batch: Batch) -> None:
        """Raises RequestError for a prompt that is empty or too long."""
        self._all("add", requests, batch)

    def step(self, timeout_s: float) -> Tokens:
        """Takes as long as the model does."""
        tokens: Tokens = self._all("step", timeout_s)
        return tokens

    def _all(self, name: str, *values: Any) -> Any:
        if self.ranks:
            self.ranks.tell(name, *values)
        return getattr(self.rank, name)(*values)

    def close(self) -> None:
        """Ends the other ranks and frees the memory of this one."""
        if getattr(self, "ranks", None):
            self.ranks.close()  # type: ignore[union-attr]
        self.__dict__.pop("rank", None)
        runtime.release(torch.device(self.options.device))


class Rank:
    """One device's part of the work."""

    def __init__(self, options: BackendOptions, share: Share = ALONE) -> None:
        runtime.set_threads(options)
        self.options = options
        self.device = torch.device(options.devices[share.rank])
        config = read_config(options.model / CONFIG)
        dtype = torch.float8_e4m3fn if options.dtype == "float8" else runtime.dtype_of(options.dtype)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device.index or 0)
            check_memory(config, share.count, dtype, torch.cuda.mem_get_info(self.device)[1])
        model = self._model(config, share, dtype)
        room = self._room(config, share, dtype)
        self.engine = Engine(model, share, room, dtype, never_ends="seed" in options.extra)
        if self.device.type == "cuda":
            gpu = self.engine.fuse()
            with torch.inference_mode():
                gpu.compile()
            if share.count == 1:
                gpu.record(_sizes(room.slots), room.pages_of(room.longest))

    def _model(self, config: LlamaConfig, share: Share, dtype: torch.dtype) -> Any:
        """From the files, or from a seed if the profile says one: 69 GB are drawn sooner than written and read."""
        if "seed" in self.options.extra:
            drawn = weights.random(config, int(self.options.extra["seed"]), self.device)
            return weights.load(config, drawn, share, self.device, dtype)
        index = self.options.model / INDEX
        with safetensors.opened(index) as found:
            kept = {name: shape for name, shape in found.shapes.items() if not name.endswith(_UNUSED)}
            check_shapes(kept, weight_shapes(config), str(index), CONFIG)

            def read(name: str, axis: int, part: Share) -> torch.Tensor:
                return found.read(name, axis, part.rank, part.count)

            return weights.load(config, read, share, self.device, dtype)

    def _room(self, config: LlamaConfig, share: Share, dtype: torch.dtype) -> Room:
        """On a CPU every slot can be full; on a GPU the cache takes the memory that is left."""
        slots = self.options.max_batch
        longest = min(config.max_position_embeddings, int(self.options.extra.get("longest", 1 << 30)))
        budget = self.options.max_cost or int(self.options.extra.get("step_tokens", 512))
        of_longest = -(-longest // _PAGE)
        most = 1 + slots * of_longest
        if self.device.type == "cpu":
            return Room(slots, longest, most, _PAGE, budget)
        runtime.release(self.device)  # what loading took, and gave back to PyTorch only
        free, total = torch.cuda.mem_get_info(self.device)
        size = _PAGE * of_token(config, dtype.itemsize) // share.count
        fits = int(free - (1 - _MEMORY) * total) // size
        if fits <= of_longest:
            raise InputError(
                f"{self.device}: {free / 1e9:.1f} GB are left beside the weights, which do not hold the keys and "
                f"values of one request ({of_longest * size / 1e9:.1f} GB): use --dtype float8 or more devices"
            )
        return Room(slots, longest, min(most, fits), _PAGE, budget)

    def add(self, requests: I64, batch: Batch) -> None:
        """See `Backend`."""
        for request, prompt, most in zip(requests.tolist(), batch.prompts, batch.most.tolist(), strict=True):
            self.engine.planner.add(request, prompt, most)

    def step(self, timeout_s: float) -> Tokens:
        """See `Backend`."""
        return self.engine.step()


def check_memory(config: LlamaConfig, devices: int, dtype: torch.dtype, memory: int) -> None:
    """Raise InputError if the weights do not fit, saying how many such GPUs would do. memory: bytes of one of them."""
    count = parameters(config)
    if count * dtype.itemsize / devices <= _MEMORY * memory:
        return
    fits = [
        f"--dtype {name} --gpus-per-worker {gpus}"
        for name, size in (("float8", 1), ("bfloat16", 2))
        for gpus in (1, 2, 4, 8)
        if count * size / gpus <= 0.8 * memory and config.num_key_value_heads % gpus == 0
    ]
    raise InputError(
        f"{count / 1e9:.1f} B parameters take {count * dtype.itemsize / devices / 1e9:.1f} GB on each of {devices} "
        f"GPUs of {memory / 1e9:.1f} GB: use {' or '.join(fits) or 'a smaller Llama'}"
    )


def _check_float8() -> None:
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) < (8, 9):
        raise InputError(f"dtype 'float8': this GPU has capability {major}.{minor}, and 8.9 is needed: use bfloat16")


def _sizes(most: int) -> list[int]:
    """Powers of two from 16, which 8-bit products want at the least, then multiples of 64, and `most`."""
    return [*(size for size in (16, 32) if size < most), *range(64, most, 64), max(16, most)]
