"""Prints Triton's code of the decoding kernel for an H200, in float16 and at the full model's sizes; needs no GPU."""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bench_rnnt.official import ALPHABET, MAX_SYMBOLS
from bench_rnnt.pytorch import kernels
from bench_rnnt.pytorch.decoding import AHEAD

TYPES = {"lengths": "*i64", "last_bias": "*fp32", "cell": "*fp32", "ids": "*i8", "counts": "*i64"}
NUMBERS = ("batch", "time_stride", "batch_stride", "ids_stride")
CONSTANTS = {
    "LAYERS": 2,
    "WIDTH": 320,
    "JOINT": 512,
    "GROUP": 16,
    "START": len(ALPHABET),
    "BLANK": len(ALPHABET),
    "MOST": MAX_SYMBOLS,
    "AHEAD": AHEAD,
    "OUTPUTS": 32,
    "BLOCK": 64,
    "PRECISION": "ieee",
}


def type_of(name: str) -> str:
    """In Triton's words."""
    return "constexpr" if name in CONSTANTS else "i32" if name in NUMBERS else TYPES.get(name, "*fp16")


def main() -> None:
    kernel = kernels._decode
    signature = {name: type_of(name) for name in kernel.arg_names}
    aligned = [name for name, kind in signature.items() if kind.startswith("*")]
    attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, signature, CONSTANTS, attributes)
    print(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=kernels.LAUNCH).asm["ttgir"])


main()
