"""RNN-T on PyTorch: `rnnt.pt`, the official checkpoint. A batch goes from waveforms to labels on one device."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from bench_rnnt.config import config_of
from bench_rnnt.dataset import LONGEST, Batch, silence
from bench_rnnt.model import Rnnt
from bench_rnnt.official import CHECKPOINT, MAX_SYMBOLS, own_names
from bench_rnnt.postprocess import Labels as Answer
from bench_rnnt.pytorch.decoding import Greedy, Labels, decode, decode_one
from bench_rnnt.pytorch.features import Featurizer
from loadgen.contracts import BackendOptions, Loaded
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.serving import finished
from loadgen.harness.standins.making import provide


class Backend:
    """See `loadgen.contracts.Backend`. A CPU computes in `submit`; a GPU is driven by a thread of its own, because
    decoding goes on until the last utterance is at its end, which nobody knows before."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have."""
        self.device, self._dtype = runtime.find_device(options), runtime.dtype_of(options.dtype)
        self._options = options
        self._driver = ThreadPoolExecutor(1, "gpu driver")  # starts its thread with the first batch of a GPU

    @torch.inference_mode()
    def load(self) -> Loaded:
        """Read the weights and run once. Raises InputError naming file and tensor."""
        runtime.set_threads(self._options)
        self.model = read_model(provide(self._options.model / CHECKPOINT, self._options))
        self.model.to(self.device, self._dtype)
        self.featurizer = Featurizer().to(self.device)
        greedy = Greedy(self.model)
        self._decode: Callable[[Tensor, Tensor], Labels] = lambda encoded, lengths: decode(greedy, encoded, lengths)
        if self.device.type == "cuda":
            from bench_rnnt.pytorch import gpu

            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 is float32
            frames = -(-LONGEST.frames // self.model.encoder.stack)
            with self._here():
                self._decode = gpu.Decoder(greedy, self._options.max_batch, frames, MAX_SYMBOLS * frames, self.device)
        longest = LONGEST.samples if self.device.type == "cuda" else 16_000
        # a GPU's first batch of a size chooses its kernels and takes its memory: here, not while the clock runs
        self.submit(silence(self._options.max_batch, longest)).result()
        return runtime.loaded(self.device, self._options.dtype)

    def submit(self, batch: Batch) -> Future[list[Answer]]:
        """The future of each utterance's labels. Raises what PyTorch raises."""
        waves, samples = torch.from_numpy(batch.waves), torch.from_numpy(batch.lengths)
        if self.device.type == "cuda":  # page-locked here, while the GPU computes the batch before
            return self._driver.submit(self.predict, waves.pin_memory(), samples.pin_memory())
        return finished(self.predict(waves, samples))

    @torch.inference_mode()
    def predict(self, waves: Tensor, samples: Tensor) -> list[Answer]:
        """Each utterance's labels, from int16 [B, N] and [B] on the host."""
        with self._here():
            labels = self._decode(*self.encode(waves, samples))
            counts = labels.counts.tolist()
            ids = labels.ids[:, : max(counts)].cpu().numpy()
        return [row[:count].copy() for row, count in zip(ids, counts, strict=True)]

    def _here(self) -> AbstractContextManager[object]:
        """Streams and events are those of the current GPU, which each thread chooses."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def encode(self, waves: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's ([T, B, hidden], lengths [B] in its frames)."""
        x, joined = self.featurizer(*(column.to(self.device, non_blocking=True) for column in (waves, samples)))
        encoded, lengths = self.model.encoder(x.to(self._dtype), joined)
        return encoded, lengths

    def close(self) -> None:
        """Frees the weights."""
        self._driver.shutdown()
        for name in ("_decode", "model", "featurizer"):
            self.__dict__.pop(name, None)
        runtime.release(self.device)


@torch.inference_mode()
def sequential(backend: Backend, batch: Batch) -> list[list[int]]:
    """What `speed` compares with: as the reference app decodes, one utterance and one label at a time."""
    encoded, lengths = backend.encode(torch.from_numpy(batch.waves), torch.from_numpy(batch.lengths))
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
