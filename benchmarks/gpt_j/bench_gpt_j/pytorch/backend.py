"""GPT-J on PyTorch: a Hugging Face folder of any size, on one device."""

from __future__ import annotations

from typing import Any

import torch

from bench_gpt_j.config import GPTJConfig, read_config, weight_shapes
from bench_gpt_j.dataset import Batch
from bench_gpt_j.memory import SIZES, of_search
from bench_gpt_j.official import BEAMS, CONFIG, INDEX, LONGEST, MAX_NEW, MIN_NEW, TOKENIZER
from bench_gpt_j.pytorch import beams, checkpoint, weights
from bench_gpt_j.pytorch.engine import BUDGET, Engine, Search
from bench_gpt_j.tokenizer import read_tokenizer
from loadgen.contracts import I64, BackendOptions, InputError, Loaded, Tokens
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.runtimes.checkpoints import check_shapes
from loadgen.harness.standins.making import provide

DTYPES = tuple(SIZES)
_MEMORY = 0.9
"""Share of a GPU's memory for weights and cache; the rest is for what a step computes."""


class Backend:
    """See `loadgen.contracts.TokenBackend`. A whole answer comes at once, with the step that ends its search."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have, or a length rule."""
        self.device = runtime.find_device(options, DTYPES)
        self.options = options
        try:
            self.length = beams.of(options.extra.get("beam_length", "generated"))
        except ValueError as error:
            raise InputError(str(error)) from error

    def load(self) -> Loaded:
        """Read the weights. Raises InputError naming file and tensor, or for a device whose memory is too small."""
        runtime.set_threads(self.options)
        extra, config = self.options.extra, read_config(self.options.model / CONFIG)
        if "seed" not in extra:
            provide(self.options.model / INDEX, self.options)
        search = Search(
            end=read_tokenizer(self.options.model / TOKENIZER).end,
            beams=int(extra.get("beams", BEAMS)),
            least=int(extra.get("min_new_tokens", MIN_NEW)),
            most=int(extra.get("max_new_tokens", MAX_NEW)),
            length=self.length,
            never_ends="seed" in extra,
        )
        longest = min(int(extra.get("longest", LONGEST)), config.n_positions - search.most)
        if longest < 1:
            raise InputError(
                f"{self.options.model / CONFIG}: answers of {search.most} tokens leave no room for a prompt in a "
                f"context of {config.n_positions}: use the model of the benchmark"
            )
        model = self._model(config)
        slots = self._slots(config, longest + search.beams * search.most)
        self.engine = Engine(model, search, slots, longest, self.options.max_cost or BUDGET)
        if self.device.type == "cuda":
            self.engine.fuse().record(_sizes(slots))
        return runtime.loaded(self.device, self.options.dtype)

    def room(self) -> int:
        """Searches that could begin now."""
        return self.engine.room()

    def add(self, requests: I64, batch: Batch) -> None:
        """Raises RequestError for a prompt that is empty or too long."""
        for request, prompt, most in zip(requests.tolist(), batch.prompts, batch.most.tolist(), strict=True):
            self.engine.add(request, prompt, most)

    def step(self, timeout_s: float) -> Tokens:
        """Takes as long as the model does."""
        return self.engine.step()

    def close(self) -> None:
        """Frees the device."""
        self.__dict__.pop("engine", None)  # not there if loading failed
        runtime.release(self.device)

    def _model(self, config: GPTJConfig) -> Any:
        """From the files, or from a seed if the profile says one: 12 GB are drawn sooner than written and read."""
        dtype = runtime.dtype_of(self.options.dtype)
        if "seed" in self.options.extra:
            drawn = weights.random(config, int(self.options.extra["seed"]), self.device)
            return weights.load(config, drawn, self.device, dtype)
        with checkpoint.opened(self.options.model) as found:
            check_shapes(found.shapes, weight_shapes(config), str(found.file), CONFIG)
            return weights.load(config, found.read, self.device, dtype)

    def _slots(self, config: GPTJConfig, places: int) -> int:
        """As many as were asked for; on a GPU as many of these as the memory holds beside the weights."""
        if self.device.type == "cpu":
            return self.options.max_batch
        runtime.release(self.device)
        free, total = torch.cuda.mem_get_info(self.device)
        size = of_search(config, places, SIZES[self.options.dtype])
        fits = int(free - (1 - _MEMORY) * total) // size
        if fits < 1:
            raise InputError(
                f"{self.device}: {free / 1e9:.1f} GB are left beside the weights, and one search takes "
                f"{size / 1e9:.1f} GB: use --dtype bfloat16 or a larger GPU"
            )
        return min(self.options.max_batch, fits)


def _sizes(most: int) -> list[int]:
    """Powers of two below 16, then multiples of it, and `most`."""
    return [*(1 << k for k in range(4) if 1 << k < most), *range(16, most, 16), most]
