"""Kernels of a benchmark's own: what can be seen without a GPU. Benchmarks that have some run them where one is."""

from __future__ import annotations

import ctypes

import pytest

from loadgen.harness.runtimes import cuda

torch = pytest.importorskip("torch")


def test_arguments_are_passed_by_their_type() -> None:
    tensor = torch.zeros(3)
    passed = [cuda._passed(one) for one in (tensor, None, 7, 0.5)]
    assert [type(one) for one in passed] == [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_float]
    assert [one.value for one in passed] == [tensor.data_ptr(), None, 7, 0.5]


def test_a_processor_has_no_matrix_units() -> None:
    assert not cuda.has_matrix_units(torch.device("cpu"))


@pytest.mark.skipif(torch.version.cuda is not None, reason="has the compiler")
def test_without_cuda_there_is_no_compiler() -> None:
    with pytest.raises(OSError, match="libnvrtc"):
        cuda.compiled(cuda.Path(cuda.__file__), [])
