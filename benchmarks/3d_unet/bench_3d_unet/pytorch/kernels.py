"""The kernels of `kernels.cu`: compiled when a model is loaded, for the GPU that is there, and launched.

The compiler is a library that comes with PyTorch (NVRTC); launching is the driver's. Nothing has to be installed.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.cu")
THREADS = {"settle": 1024}
"""Of a block, if not 128."""
SHARED = {"convolve": 6 * 10 * 18 * 64, "descend": 5 * 9 * 34 * 64, "rise": 10 * 4 * 128 * 16}
"""The most bytes of shared memory of a block: tiles of 4 x 8 x 16 and 2 x 4 x 16 outputs with the voxels around, 32
channels of 2 bytes; what 128 threads hold of 10 x 32 channels, 4 x 16 bytes each."""
_SHARED_MEMORY = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

Argument: TypeAlias = "Tensor | int | float | None"


class Kernels:
    """Those of one number format, on one GPU."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """Raises RuntimeError with the compiler's or the driver's message."""
        torch.zeros(1, device=device)  # PyTorch has made the device ready after this
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._module = ctypes.c_void_p()
        self._found: dict[str, ctypes.c_void_p] = {}
        with torch.cuda.device(device):
            self._checked(self._driver.cuModuleLoadData(ctypes.byref(self._module), _compiled(device, dtype)))

    def launch(self, name: str, grid: tuple[int, int], *arguments: Argument, shared: int | None = None) -> None:
        """On the current stream; arguments in the order and of the types that the kernel has. None is a null pointer.

        shared: bytes, if fewer than the most."""
        values = [_passed(one) for one in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        block, shared = THREADS.get(name, 128), SHARED.get(name, 0) if shared is None else shared
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        launched = self._driver.cuLaunchKernel(self._named(name), *grid, 1, block, 1, 1, shared, stream, pointers, None)
        self._checked(launched)

    def _named(self, name: str) -> ctypes.c_void_p:
        if name not in self._found:
            found = self._found[name] = ctypes.c_void_p()
            self._checked(self._driver.cuModuleGetFunction(ctypes.byref(found), self._module, name.encode()))
            self._checked(self._driver.cuFuncSetAttribute(found, _SHARED_MEMORY, SHARED.get(name, 0)))
        return self._found[name]

    def _checked(self, code: int) -> None:
        if code:
            message = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(message))
            raise RuntimeError(f"{SOURCE.name}: the driver says: {(message.value or b'').decode()} ({code})")


def is_supported(device: torch.device, dtype: torch.dtype) -> bool:
    """In 16 bits, from Ampere on."""
    return device.type == "cuda" and dtype != torch.float32 and torch.cuda.get_device_capability(device) >= (8, 0)


def _passed(argument: Argument) -> ctypes.c_void_p | ctypes.c_int | ctypes.c_float:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if argument is None:
        return ctypes.c_void_p()
    return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_float(argument)


def _compiled(device: torch.device, dtype: torch.dtype) -> ctypes.Array[ctypes.c_char]:
    """Machine code. Raises RuntimeError with what the compiler says."""
    compiler, program = _compiler(), ctypes.c_void_p()
    major, minor = torch.cuda.get_device_capability(device)
    options = [f"--gpu-architecture=sm_{major}{minor}", "-std=c++17", f"-DIS_BF16={int(dtype == torch.bfloat16)}"]
    given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    compiler.nvrtcCreateProgram(ctypes.byref(program), SOURCE.read_bytes(), SOURCE.name.encode(), 0, None, None)
    if compiler.nvrtcCompileProgram(program, len(options), given):
        raise RuntimeError(_text(compiler, program, "ProgramLog").value.decode())
    return _text(compiler, program, "CUBIN")


def _text(compiler: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> ctypes.Array[ctypes.c_char]:
    size = ctypes.c_size_t()
    getattr(compiler, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(compiler, f"nvrtcGet{what}")(program, text)
    return text


def _compiler() -> ctypes.CDLL:
    """Where PyTorch has loaded it from, or else from the package that it comes in."""
    name = f"libnvrtc.so.{(torch.version.cuda or '').partition('.')[0]}"
    try:
        return ctypes.CDLL(name)
    except OSError:
        packages = Path(torch.__file__).parents[1]
        beside = next(packages.glob(f"nvidia/**/{name}"), None)
        if beside is None:
            raise
        return ctypes.CDLL(str(beside))
