"""RNN-T on PyTorch: `rnnt.pt`, the official checkpoint. A batch goes from waveforms to labels on one device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench_rnnt.config import config_of
from bench_rnnt.dataset import LONGEST, Batch, silence
from bench_rnnt.features import JOINED, RATE
from bench_rnnt.model import Rnnt
from bench_rnnt.official import CHECKPOINT, own_names
from bench_rnnt.postprocess import Labels as Answer
from bench_rnnt.pytorch.decoding import Greedy, Labels, decode, decode_one
from bench_rnnt.pytorch.features import Featurizer
from loadgen.contracts import BackendOptions, Loaded
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide

if TYPE_CHECKING:
    from bench_rnnt.pytorch.gpu import Pipeline


class Backend:
    """See `loadgen.contracts.Backend`. A CPU computes in `submit`, a GPU goes on computing after it."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have."""
        self.device, self._dtype = runtime.find_device(options), runtime.dtype_of(options.dtype)
        self._options = options
        self._pipeline: Pipeline | None = None

    @torch.inference_mode()
    def load(self) -> Loaded:
        """Read the weights and run once. Raises InputError naming file and tensor."""
        runtime.set_threads(self._options)
        self.model = read_model(provide(self._options.model / CHECKPOINT, self._options))
        self.model.to(self.device, self._dtype)
        self.featurizer = Featurizer().to(self.device)
        greedy = Greedy(self.model)
        self._decode: Callable[[Tensor, Tensor], Labels] = partial(decode, greedy)
        if self.device.type == "cuda":
            self._start_pipeline(greedy)
        else:
            self.submit(silence(self._options.max_batch, RATE)).result()
        return runtime.loaded(self.device, self._options.dtype)

    def _start_pipeline(self, greedy: Greedy) -> None:
        """Its first batches choose kernels and take memory: here, not while the clock runs."""
        from bench_rnnt.pytorch import gpu, kernels  # need Triton, which comes with PyTorch's builds for GPUs

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 is float32
        decoder = kernels.Decoder(greedy)
        gpu.fill(self.model.encoder)

        def encode(waves: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
            encoded, lengths = self.encode(waves, samples)
            return decoder.project(encoded), lengths

        most = self._options.max_batch
        frames = self._options.max_cost or most * LONGEST.frames
        self._pipeline = gpu.Pipeline(encode, decoder, self.device, frames * JOINED)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "RNN module weights")  # in bfloat16 PyTorch copies them before each use
            for count in {1, min(most, max(1, frames // LONGEST.frames)), most}:
                self.submit(silence(count, JOINED * max(2, min(LONGEST.frames, frames // count)))).result()

    @torch.inference_mode()
    def submit(self, batch: Batch) -> Future[list[Answer]]:
        """The future of each utterance's labels. Raises what PyTorch raises."""
        if self._pipeline is not None:
            return self._pipeline.submit(batch)
        labels = self._decode(*self.encode(torch.from_numpy(batch.padded), torch.from_numpy(batch.lengths)))
        return finished([ids[:count].numpy() for ids, count in zip(labels.ids, labels.counts.tolist(), strict=True)])

    def encode(self, waves: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's ([T, B, hidden], lengths [B] in its frames), from int16 [B, N] and [B], all on the device."""
        x, joined = self.featurizer(waves, samples)
        encoded, lengths = self.model.encoder(x.to(self._dtype), joined)
        return encoded, lengths

    def close(self) -> None:
        """Frees the weights."""
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = None
        for name in ("_decode", "model", "featurizer"):
            self.__dict__.pop(name, None)
        runtime.release(self.device)


@torch.inference_mode()
def sequential(backend: Backend, batch: Batch) -> list[list[int]]:
    """What `speed` compares with: as the reference app decodes, one utterance and one label at a time."""
    columns = (torch.from_numpy(column).to(backend.device) for column in (batch.padded, batch.lengths))
    encoded, lengths = backend.encode(*columns)
    return [decode_one(backend.model, encoded[:, row, None], length) for row, length in enumerate(lengths.tolist())]


def read_model(path: Path) -> Rnnt:
    """The model of the official checkpoint, on the CPU. Raises InputError naming the file, and the tensor and its
    shape."""
    state = own_names(runtime.read_state_dict(path, key="state_dict"))
    config = config_of({name: tuple(value.shape) for name, value in state.items()}, str(path))
    with torch.device("meta"):  # no random values are made only to be replaced
        model = Rnnt(config)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False).float()
