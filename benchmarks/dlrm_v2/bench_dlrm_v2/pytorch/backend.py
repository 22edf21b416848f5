"""DLRM-DCNv2 on PyTorch: the official snapshot's tables and dense weights."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench_dlrm_v2.batch import F32, Batch, Features
from bench_dlrm_v2.config import PREFIX, DlrmConfig
from bench_dlrm_v2.model import Dense
from bench_dlrm_v2.pytorch.source import Source
from bench_dlrm_v2.pytorch.tables import COMPUTED, STORED, Mapped, Resident
from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes import torch as runtime
from loadgen.harness.serving import finished

if TYPE_CHECKING:
    from bench_dlrm_v2.pytorch.gpu import Pipeline


_PAIRS_AT_ONCE = 512  # by each thread of a CPU: more do not stay in its caches


class Backend:
    """See `loadgen.contracts.Backend`. A CPU computes in `submit`, a GPU goes on computing after it."""

    def __init__(self, options: BackendOptions) -> None:
        """Raises InputError for a device or dtype that this machine or backend does not have."""
        singles = [replace(options, devices=(name,)) for name in options.devices]
        self._devices = [runtime.find_device(single, STORED) for single in singles]
        if len(self._devices) > 1 and any(device.type != "cuda" for device in self._devices):
            raise InputError(f"devices {', '.join(options.devices)}: tables are spread over GPUs only")
        self._options = options
        self._pipeline: Pipeline | None = None

    @torch.inference_mode()
    def load(self) -> Loaded:
        """Read the weights and run once. Raises InputError naming file, tensor or what does not fit."""
        runtime.set_threads(self._options)
        source = Source(self._options)
        if source.is_mapped:
            source.snapshot.check_files()
        self._dtype = COMPUTED[self._options.dtype]
        self.network = self._network(source)
        device, stored = self._devices[0], STORED[self._options.dtype]
        if device.type == "cuda":
            from bench_dlrm_v2.pytorch import gpu  # needs Triton, which comes with PyTorch's builds for GPUs

            self._pipeline = gpu.Pipeline(self.network, source, stored, self._devices, self._options)
        elif source.is_mapped and stored == torch.float32:
            self.tables: Mapped | Resident = Mapped(source)
        else:
            self.tables = Resident(source, range(len(source.config.rows)), stored, device)
        self._warm_up(source)
        where = runtime.loaded(device, self._options.dtype)
        return replace(where, device=" + ".join(runtime.loaded(one, "").device for one in self._devices))

    def _network(self, source: Source) -> Dense:
        with torch.device("meta"):  # no random values are made only to be replaced
            network = Dense(source.config)
        state = {name.removeprefix(PREFIX): value for name, value in source.state().items()}
        network.load_state_dict(state, strict=True, assign=True)
        return network.eval().requires_grad_(False).to(self._devices[0], self._dtype)

    def _warm_up(self, source: Source) -> None:
        """A pair of rows 0, which is finite or the weights are not. A GPU compiles its kernels, and takes the memory of
        a batch."""
        sizes = (1,) if self._pipeline is None else (1, self._pipeline.pairs)
        for pairs in sizes:
            answer = self.submit(_zeros(source.config, pairs)).result()
        if not np.isfinite(answer).all():
            raise InputError(f"{source.snapshot.metadata}: its weights give {answer[0]} for zeros. Fetch them again")

    @torch.inference_mode()
    def submit(self, batch: Batch) -> Future[F32]:
        """The future of probabilities, float32 [pairs]. Raises what PyTorch raises."""
        if self._pipeline is not None:
            return self._pipeline.submit(batch)
        features = batch.features
        size = _PAIRS_AT_ONCE * torch.get_num_threads()
        dense = torch.split(torch.from_numpy(features.dense).to(self._dtype), size)
        columns = zip(*(torch.split(torch.from_numpy(ids), size) for ids in features.columns), strict=True)
        bags = (self.tables.bags(ids).to(self._dtype) for ids in columns)
        parts = [self.network(*part) for part in zip(dense, bags, strict=True)]
        return finished(torch.cat(parts).numpy())

    def close(self) -> None:
        """Frees the weights."""
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = None
        for name in ("tables", "network"):
            self.__dict__.pop(name, None)
        for device in self._devices:
            runtime.release(device)


def _zeros(config: DlrmConfig, pairs: int) -> Batch:
    """One sample of so many pairs, an index into each table."""
    tables = len(config.rows)
    dense, indices = np.zeros((pairs, config.dense), np.float32), np.zeros((pairs, tables), np.int32)
    return Batch(Features(dense, indices, (1,) * tables), np.zeros(1, np.int64), np.array([pairs]))
