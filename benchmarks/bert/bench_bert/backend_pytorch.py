"""BERT on PyTorch: `model.pytorch`, the official state dict, and `bert_config.json`."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_bert.config import FILE, BertConfig, check_weights, read_config
from bench_bert.dataset import Batch
from bench_bert.model import BertForQuestionAnswering, Packed
from bench_bert.official import PYTORCH
from bench_bert.postprocess import PADDING, Logits, full_width
from loadgen.contracts import BackendOptions, Loaded
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

# Numbers of sequences and tokens that make the compiled code general: it is one for up to 1,023 tokens and another
# from there on, and each is made for any number once it has seen a second.
_WARM_UP = ([9, 30], [40, 50, 60], [300] * 8, [200] * 64)
_STEP = 64  # single samples are recorded for every so many tokens

# In the official file, but no part of question answering: the pooler and a table of 0, 1, 2, ...
_UNUSED = ("bert.pooler.", "bert.embeddings.position_ids")


class Backend:
    """See `loadgen.contracts.Backend`. Nothing is padded: a batch's tokens follow each other."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have."""
        self.device = runtime.find_device(options)
        self.options = options

    def load(self) -> Loaded:
        """Read the weights and run once. Raises InputError naming file and tensor."""
        runtime.set_threads(self.options)
        config = read_config(self.options.model / FILE)
        state = read_state(provide(self.options.model / PYTORCH, self.options), config)
        with torch.device("meta"):  # no random values are made only to be replaced
            self.model = BertForQuestionAnswering(config)
        self.model.load_state_dict(state, strict=True, assign=True)
        self.model.eval().requires_grad_(False).to(self.device, runtime.dtype_of(self.options.dtype))
        self.run_packed: Any = self.model.packed
        self.recorded: dict[int, Recorded] = {}
        self.waiter = ThreadPoolExecutor(1, "gpu-answers")  # starts its thread with the first batch of a GPU
        if self.device.type == "cuda" and self.options.dtype != "float32":
            with torch.cuda.device(self.device):
                self._compile(config.max_position_embeddings)
        # A GPU's first batch of a size chooses its kernels and takes its memory: here, not while the clock runs.
        longest = 8 if self.device.type == "cpu" else config.max_position_embeddings
        self.predict(_ones([longest] * self.options.max_batch))
        return runtime.loaded(self.device, self.options.dtype)

    @torch.inference_mode()
    def _compile(self, longest: int) -> None:
        """Compile for any number of tokens, and record the kernels of single samples, whose launch takes longer
        than their computing: on an H200 5.8 ms instead of 1.4."""
        self.run_packed = torch.compile(self.model.packed, dynamic=True)
        for lengths in _WARM_UP:
            tokens, packed = pack(_ones(fitting(lengths, longest)))
            self.run_packed(tokens.to(self.device), Packed(packed.starts.to(self.device), packed.longest))
        self.recorded = {
            size: Recorded(self.run_packed, size, self.device) for size in range(_STEP, longest + 1, _STEP)
        }

    def predict(self, batch: Batch) -> Logits:
        """Answers [n, width, 2] in float32, whatever the model computes in."""
        return self.submit(batch).result()

    @torch.inference_mode()
    def submit(self, batch: Batch) -> Future[Logits]:
        """The future of answers [n, width, 2]. Raises what PyTorch raises. A GPU computes while this thread goes on."""
        tokens, packed = pack(batch)
        if self.device.type == "cuda":
            return self._launch(tokens, packed, batch)
        return finished(unpack(self.model.packed(tokens, packed).numpy(), batch))

    def _launch(self, tokens: torch.Tensor, packed: Packed, batch: Batch) -> Future[Logits]:
        size = -(-tokens.shape[1] // _STEP) * _STEP
        with torch.cuda.device(self.device):
            if len(batch.input_ids) == 1 and size in self.recorded:
                logits = self.recorded[size].replay(tokens.pin_memory())
            else:
                if self.recorded:  # the kernels for 16-bit numbers read the starts on the device
                    packed = Packed(packed.starts.to(self.device, non_blocking=True), packed.longest)
                logits = self.run_packed(tokens.pin_memory().to(self.device, non_blocking=True), packed)
            answers = torch.empty(logits.shape, dtype=torch.float32, pin_memory=True).copy_(logits, non_blocking=True)
            ready: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        if len(batch.input_ids) == 1:  # somebody waits for it: no other thread could be as soon
            return finished(finish(ready, answers, batch))
        return self.waiter.submit(finish, ready, answers, batch)

    def close(self) -> None:
        """Frees the weights."""
        if "waiter" in self.__dict__:
            self.waiter.shutdown()
        for name in ("recorded", "run_packed", "model"):
            self.__dict__.pop(name, None)
        runtime.release(self.device)


@torch.inference_mode()
def padded(backend: Backend, batch: Batch) -> Logits:
    """What `speed` compares with: as the reference app computes, padded to the benchmark's length, with a mask."""
    columns = batch.padded_to(batch.width).columns
    start, end = backend.model(*(torch.from_numpy(column).to(backend.device) for column in columns))
    return full_width(start.float().cpu().numpy(), end.float().cpu().numpy(), batch)


class Recorded:
    """The kernels of one sample of up to `size` tokens, launched as one. The rest is a sequence of its own."""

    def __init__(self, function: Any, size: int, device: torch.device) -> None:
        self._tokens = torch.zeros((3, size), dtype=torch.int32, device=device)
        self._starts = torch.tensor([0, size, size], dtype=torch.int32, device=device)
        packed = Packed(self._starts, size)
        stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):  # outside of the recording: compiles, and takes its memory
            function(self._tokens, packed)
        torch.cuda.synchronize(device)
        self._graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits: torch.Tensor = function(self._tokens, packed)

    def replay(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [T, 2] of tokens [3, T], until the next replay."""
        count = tokens.shape[1]
        self._tokens[:, :count].copy_(tokens, non_blocking=True)
        self._starts[1:2].fill_(count)
        self._graph.replay()
        return self._logits[:count]


def finish(ready: Any, logits: torch.Tensor, batch: Batch) -> Logits:
    """The answers [n, width, 2], once the GPU's event says that the logits have arrived."""
    ready.synchronize()
    return unpack(logits.numpy(), batch)


def fitting(lengths: list[int], longest: int) -> list[int]:
    """At least as many tokens, in sequences that the table of positions is long enough for."""
    return [min(length, longest) for length in lengths] * -(-max(lengths) // longest)


def _ones(lengths: list[int]) -> Batch:
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return Batch(mask, mask, mask, width=max(lengths))


def pack(batch: Batch) -> tuple[torch.Tensor, Packed]:
    """Tokens int32 [3, T] (ids, segments, positions) of the rows one after another, without their padding."""
    present = batch.input_mask != 0
    positions = np.broadcast_to(np.arange(present.shape[1]), present.shape)
    tokens = np.stack([column[present] for column in (batch.input_ids, batch.segment_ids, positions)])
    lengths = present.sum(axis=1)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    packed = Packed(torch.from_numpy(starts.astype(np.int32)), int(lengths.max()))
    return torch.from_numpy(tokens.astype(np.int32)), packed


def unpack(logits: Logits, batch: Batch) -> Logits:
    """Answers [n, width, 2] of packed logits [T, 2]."""
    output = np.full((len(batch.input_mask), batch.width, 2), PADDING, np.float32)
    output[:, : batch.input_mask.shape[1]][batch.input_mask != 0] = logits
    return output


def read_state(path: Path, config: BertConfig) -> dict[str, torch.Tensor]:
    """The float tensors of `model.pytorch`, on the CPU, without those that no answer depends on.

    Raises InputError naming the file, the tensor, its shape and the expected one.
    """
    state = {name: value for name, value in runtime.read_state_dict(path).items() if not name.startswith(_UNUSED)}
    check_weights({name: tuple(value.shape) for name, value in state.items()}, config, str(path))
    return state
