"""PyTorch: devices, number formats, threads and state dicts."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from loadgen.contracts import BackendOptions, InputError, Loaded
from loadgen.harness.runtimes.devices import only_device

if TYPE_CHECKING:
    import torch

DTYPES: Mapping[str, str] = MappingProxyType({"float32": "float32", "bfloat16": "bfloat16", "float16": "float16"})
"""`--dtype` -> the attribute of `torch` that is this number format."""


def find_device(options: BackendOptions, dtypes: Iterable[str] = DTYPES) -> torch.device:
    """Raises InputError for a device or dtype that this machine, PyTorch or backend lacks, or for several devices."""
    import torch

    name = only_device(options)
    if name != "cpu" and not torch.cuda.is_available():
        raise InputError(
            f"device {name!r}: PyTorch {torch.__version__} sees no GPU. "
            "Install a CUDA build and a driver, or use device cpu"
        )
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if name not in ("cpu", "cuda", *gpus):
        raise InputError(f"device {name!r}: use one of cpu, cuda, {', '.join(gpus)}")
    if options.dtype not in dtypes:
        raise InputError(f"dtype {options.dtype!r}: use one of {', '.join(dtypes)}")
    return torch.device(name)


def dtype_of(name: str) -> torch.dtype:
    """PyTorch's number format of one of DTYPES."""
    import torch

    found: torch.dtype = getattr(torch, DTYPES[name])
    return found


def loaded(device: torch.device, dtype: str) -> Loaded:
    """What a backend's `load` returns."""
    import torch

    versions = {"torch": torch.__version__}
    if device.type != "cuda":
        return Loaded(str(device), dtype, versions)
    return Loaded(
        f"{device} ({torch.cuda.get_device_name(device)})", dtype, versions | {"cuda": str(torch.version.cuda)}
    )


def set_threads(options: BackendOptions) -> None:
    """Use as many as asked for, else as the profile's model options say, else as PyTorch chooses. Process-wide."""
    import torch

    threads = options.threads or int(options.extra.get("threads", 0))
    if threads:
        torch.set_num_threads(threads)


def read_state_dict(path: Path, key: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a file, on the CPU; nothing else that may be in it is run. Raises InputError naming the file.

    key: under which a checkpoint of a training holds them, beside other things; empty: the file holds nothing else.
    """
    import torch

    if not path.is_file():
        raise InputError(f"{path}: no such file. Put the official {path.name} there")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its text advises to run whatever the file holds
        raise InputError(f"{path}: not a PyTorch state dict ({_refused(str(error))}). Fetch it again") from None
    except Exception as error:  # from bytes of any kind PyTorch raises any kind
        said = str(error).splitlines() if isinstance(error, RuntimeError) else []
        reason = said[0] if said else type(error).__name__
        raise InputError(f"{path}: not a PyTorch state dict ({reason}). Fetch it again") from error
    if key and isinstance(found, dict):
        if key not in found:
            raise InputError(f"{path}: no {key!r} in it. Fetch it again")
        found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise InputError(f"{path}: holds a {type(found).__name__}, not a dict of tensors. Fetch it again")
    return found


def _refused(text: str) -> str:
    found = re.search(r"GLOBAL (\S+)", text)
    return f"it holds a {found[1]}" if found else "it is not made of tensors"


def release(device: torch.device) -> None:
    """Give back the memory that PyTorch keeps of a GPU; the caller has let go of its tensors."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
