"""Kernels of a benchmark's own, in CUDA C++: compiled when a model is loaded, for the GPU that is there, and launched.

The compiler is a library that comes with PyTorch (NVRTC), launching is the driver's: nothing has to be installed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Argument: TypeAlias = "Tensor | int | float | None"
_SHARED_MEMORY = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


class Kernels:
    """Those of one source file, on one GPU."""

    def __init__(self, source: Path, device: torch.device, defined: Mapping[str, int]) -> None:
        """defined: values of the source's macros. Raises RuntimeError with the compiler's or the driver's message."""
        import torch

        torch.zeros(1, device=device)  # PyTorch has made the device ready after this
        self._source, self._driver = source, ctypes.CDLL("libcuda.so.1")
        self._module = ctypes.c_void_p()
        self._found: dict[str, ctypes.c_void_p] = {}
        self._allowed: dict[str, int] = {}
        options = [f"--gpu-architecture={_architecture(device)}", "-std=c++17"]
        options += [f"-D{name}={value}" for name, value in defined.items()]
        with torch.cuda.device(device):
            self._checked(self._driver.cuModuleLoadData(ctypes.byref(self._module), compiled(source, options)))

    def launch(
        self, name: str, grid: tuple[int, int], *arguments: Argument, threads: int = 128, shared: int = 0
    ) -> None:
        """On the current stream; arguments in the order and of the types that the kernel has. None is a null pointer.

        threads: of a block. shared: bytes of memory that a block wants beside what the kernel declares.
        """
        import torch

        kernel = self._named(name, shared)
        values = [_passed(one) for one in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self._checked(self._driver.cuLaunchKernel(kernel, *grid, 1, threads, 1, 1, shared, stream, pointers, None))

    def _named(self, name: str, shared: int) -> ctypes.c_void_p:
        if name not in self._found:
            found = self._found[name] = ctypes.c_void_p()
            self._checked(self._driver.cuModuleGetFunction(ctypes.byref(found), self._module, name.encode()))
        if shared > self._allowed.get(name, 0):
            self._checked(self._driver.cuFuncSetAttribute(self._found[name], _SHARED_MEMORY, shared))
            self._allowed[name] = shared
        return self._found[name]

    def _checked(self, code: int) -> None:
        if code:
            message = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(message))
            raise RuntimeError(f"{self._source.name}: the driver says: {(message.value or b'').decode()} ({code})")


def has_matrix_units(device: torch.device) -> bool:
    """For products in 16 bits, bfloat16 too: from Ampere on."""
    import torch

    return device.type == "cuda" and bool(torch.cuda.get_device_capability(device) >= (8, 0))


def compiled(source: Path, options: list[str]) -> ctypes.Array[ctypes.c_char]:
    """Machine code for the architecture that the options name. Raises RuntimeError with what the compiler says."""
    compiler, program = _compiler(), ctypes.c_void_p()
    given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    compiler.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
    if compiler.nvrtcCompileProgram(program, len(options), given):
        raise RuntimeError(_text(compiler, program, "ProgramLog").value.decode())
    return _text(compiler, program, "CUBIN")


def _architecture(device: torch.device) -> str:
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def _passed(argument: Argument) -> ctypes.c_void_p | ctypes.c_int | ctypes.c_float:
    if argument is None:
        return ctypes.c_void_p()
    if isinstance(argument, int):
        return ctypes.c_int(argument)
    return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_void_p(argument.data_ptr())


def _text(compiler: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> ctypes.Array[ctypes.c_char]:
    size = ctypes.c_size_t()
    getattr(compiler, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(compiler, f"nvrtcGet{what}")(program, text)
    return text


def _compiler() -> ctypes.CDLL:
    """Where PyTorch has loaded it from, or else from the package that it comes in."""
    import torch

    name = f"libnvrtc.so.{(torch.version.cuda or '').partition('.')[0]}"
    try:
        return ctypes.CDLL(name)
    except OSError:
        packages = Path(torch.__file__).parents[1]
        beside = next(packages.glob(f"nvidia/**/{name}"), None)
        if beside is None:
            raise
        return ctypes.CDLL(str(beside))
