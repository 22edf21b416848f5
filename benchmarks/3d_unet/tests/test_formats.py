"""Files that we write are in the official form; sizes and tensors that do not fit are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from monai.networks.nets import DynUNet

from bench_3d_unet.benchmark import BENCHMARK
from bench_3d_unet.config import FILE, UNetConfig, check_weights, read_config, weight_shapes, write_config
from bench_3d_unet.model import UNet
from bench_3d_unet.official import CHECKPOINT, ONNX, ONNX_ONE, SAVED_MODEL, TENSORFLOW, TORCHSCRIPT
from bench_3d_unet.standins.formats import WRITERS
from loadgen.contracts import InputError


def test_every_backend_reads_a_file_that_is_written() -> None:
    assert {Path(spec.file).name for spec in BENCHMARK.backends.values()} <= set(WRITERS)


def test_the_full_model_has_the_official_size() -> None:
    """31,190,243 parameters, as counted in the official checkpoint."""
    with torch.device("meta"):
        state = UNet(UNetConfig()).state_dict()
    check_weights({name: tuple(value.shape) for name, value in state.items()}, UNetConfig(), "the model")
    assert sum(value.numel() for value in state.values()) == 31_190_243
    assert list(state) == list(weight_shapes(UNetConfig())), "also in their order"


def test_logits_are_monais(small_files: Path, small_tensors: dict[str, Any]) -> None:
    """Its DynUNet, of the same form: only its names differ, and that it has a leaky ReLU unless told otherwise."""
    config = read_config(small_files / FILE)
    levels = len(config.filters)
    theirs = DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=3,
        kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        filters=list(config.filters),
        norm_name=("INSTANCE", {"affine": True}),
        act_name="relu",
        trans_bias=True,
    )
    values = [torch.from_numpy(value) for value in small_tensors.values()]
    rest = theirs.load_state_dict(dict(zip(_their_names(levels), values, strict=True)), strict=False)
    assert not rest.unexpected_keys
    assert all(name.startswith("skip_layers.") for name in rest.missing_keys), "the same tensors by other names"
    ours = UNet(config)
    ours.load_state_dict(dict(zip(small_tensors, values, strict=True)))
    window = torch.randn(2, 1, 16, 16, 16)
    with torch.inference_mode():
        assert ours.eval()(window) == pytest.approx(theirs.eval()(window), abs=1e-5)


def _their_names(levels: int) -> list[str]:
    """In the order of ours."""

    def block(name: str) -> list[str]:
        layers = ("conv1.conv.weight", "norm1.weight", "norm1.bias", "conv2.conv.weight", "norm2.weight", "norm2.bias")
        return [f"{name}.{layer}" for layer in layers]

    names = block("input_block")
    for number in range(levels - 2):
        names += block(f"downsamples.{number}")
    names += block("bottleneck")
    for number in range(levels - 1):
        names += [f"upsamples.{number}.transp_conv.conv.{part}" for part in ("weight", "bias")]
        names += block(f"upsamples.{number}.conv_block")
    return [*names, "output_block.conv.conv.weight", "output_block.conv.conv.bias"]


@pytest.mark.parametrize(("name", "batch"), [(ONNX, "batch_size"), (ONNX_ONE, 1)])
def test_onnx(name: str, batch: str | int, small_files: Path) -> None:
    onnx.checker.check_model(small_files / name, full_check=True)
    model = onnx.load(small_files / name)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 12)]
    for nodes, wanted, channels in ((model.graph.input, "input", 1), (model.graph.output, "output", 3)):
        (node,) = nodes
        sizes = [one.dim_param or one.dim_value for one in node.type.tensor_type.shape.dim]
        assert (node.name, sizes) == (wanted, [batch, channels, 16, 16, 16])


def test_saved_model_as_the_reference_calls_it(small_files: Path, small_tensors: dict[str, Any]) -> None:
    model = tf.saved_model.load(str(small_files / TENSORFLOW)).signatures["serving_default"]
    window = np.random.default_rng(0).standard_normal((1, 1, 16, 16, 16)).astype(np.float32)
    found = model(tf.constant(window))[next(iter(model.structured_outputs))].numpy()
    ours = UNet(read_config(small_files / FILE))
    ours.load_state_dict({name: torch.from_numpy(value) for name, value in small_tensors.items()})
    with torch.inference_mode():
        assert found == pytest.approx(ours(torch.from_numpy(window)).numpy(), abs=1e-4)


def test_pytorchs_files_as_the_reference_reads_them(small_files: Path, small_tensors: dict[str, Any]) -> None:
    state = torch.load(small_files / CHECKPOINT, weights_only=True)["best_model_state_dict"]
    script = torch.jit.load(str(small_files / TORCHSCRIPT))
    ours = UNet(read_config(small_files / FILE))
    ours.load_state_dict(state)
    window = torch.randn(1, 1, 32, 16, 16)
    with torch.inference_mode():
        assert script(window) == pytest.approx(ours(window), abs=1e-5)
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in script.state_dict().items()
    }
    assert all((state[name].numpy() == value).all() for name, value in small_tensors.items())


@pytest.mark.parametrize("name", WRITERS)
def test_tensors_that_do_not_fit_are_not_written(
    name: str, small_files: Path, small_tensors: dict[str, Any], tmp_path: Path
) -> None:
    wider = replace(read_config(small_files / FILE), filters=(4, 6, 9, 10))
    with pytest.raises(InputError, match=r"tensors to write: tensor 'downsample\.1\.conv1\.0\.weight'"):
        WRITERS[name].write(tmp_path / name, wider, small_tensors)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('{"window": 32}', "'filters' is None, expected a list"),
        ('{"filters": [8, 16], "window": 32}', "expected a list of channels of three levels"),
        ('{"filters": [8, 16, "x"], "window": 32}', r"'filters\[2\]' is 'x', expected a positive whole number"),
        ('{"filters": [8, 16, 24], "window": 0}', "'window' is 0"),
        ('{"filters": [8, 16, 24, 24], "window": 24}', "a window of 24 cannot be halved 3 times to an even side"),
    ],
)
def test_bad_sizes_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_config(tmp_path / FILE)
    assert FILE in str(caught.value)


def test_sizes_are_written_and_read(tmp_path: Path) -> None:
    config = UNetConfig((4, 8, 12), 16)
    write_config(tmp_path / FILE, config)
    assert read_config(tmp_path / FILE) == config
    assert read_config(tmp_path / "none") == UNetConfig()
    assert SAVED_MODEL.startswith(TENSORFLOW)
