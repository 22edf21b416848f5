"""Every backend gives one model's labels, reads each official file, and names what is wrong with a bad one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import DynUNet

from bench_3d_unet.benchmark import BENCHMARK
from bench_3d_unet.config import FILE, UNetConfig, write_config
from bench_3d_unet.dataset import Batch
from bench_3d_unet.official import CHECKPOINT, CHECKPOINT_KEY, ONNX, ONNX_ONE, SAVED_MODEL, TENSORFLOW, TORCHSCRIPT
from bench_3d_unet.standins.format_tensorflow import write_tensorflow
from bench_3d_unet.standins.formats import write_onnx
from bench_3d_unet.standins.synthetic import random_tensors
from loadgen.contracts import BackendOptions, InputError

Load = Callable[..., Any]
WINDOWS = np.random.default_rng(4).standard_normal((3, 1, 16, 16, 16), np.float32)


@pytest.fixture
def expected(small_files: Path, load: Load) -> Any:
    """Logits of PyTorch in FP32."""
    return load("pytorch", small_files).predict(WINDOWS)


@pytest.mark.parametrize("name", BENCHMARK.backends)
def test_logits_and_labels_agree(
    name: str, small_files: Path, small_volumes: list[Any], expected: Any, load: Load
) -> None:
    backend = load(name, small_files)
    assert backend.predict(WINDOWS) == pytest.approx(expected, abs=1e-4)
    labels = backend.submit(Batch(small_volumes)).result()
    truth = load("pytorch", small_files).submit(Batch(small_volumes)).result()
    for found, other, volume in zip(labels, truth, small_volumes, strict=True):
        assert (found.shape, found.dtype) == (volume.shape, np.uint8)
        assert np.mean(found != other) < 1e-3, "but for ties"


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_16_bits_on_a_cpu(dtype: str, tolerance: float, small_files: Path, expected: Any, load: Load) -> None:
    found = load("pytorch", small_files, dtype=dtype).predict(WINDOWS)
    assert found.dtype == np.float32
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < tolerance


def test_the_single_window_onnx_file_is_read_alone(small: Path, expected: Any, load: Load) -> None:
    (small / ONNX).unlink()
    backend = load("onnxruntime", small)
    assert backend.windows == 1
    with pytest.raises(Exception, match=r"(?i)invalid dimensions"):
        backend.predict(WINDOWS)
    assert np.concatenate([backend.predict(window[None]) for window in WINDOWS]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.filterwarnings("ignore")  # PyTorch would rather export in its newer way
@pytest.mark.parametrize("name", [ONNX, ONNX_ONE])
def test_files_that_pytorch_exported_from_monais_network_are_read(name: str, tmp_path: Path, load: Load) -> None:
    """As the official ones were exported from the reference's network; nothing of ours wrote these."""
    levels, filters = 4, [4, 6, 8, 10]
    steps: dict[str, Any] = {"strides": [1] + [2] * (levels - 1), "upsample_kernel_size": [2] * (levels - 1)}
    norm = ("INSTANCE", {"affine": True})
    network = DynUNet(3, 1, 3, [3] * levels, **steps, filters=filters, norm_name=norm, act_name="relu").eval()
    windows = torch.from_numpy(WINDOWS)
    torch.onnx.export(
        network,
        (windows[:1],),
        str(tmp_path / name),
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={side: {0: "batch_size"} for side in ("input", "output")} if name == ONNX else None,
        opset_version=12,
        dynamo=False,
    )
    write_config(tmp_path / FILE, UNetConfig(tuple(filters), 16))
    backend = load("onnxruntime", tmp_path)
    assert backend.windows == (8 if name == ONNX else 1)
    with torch.inference_mode():
        theirs = network(windows).numpy()
    for groups in np.split(np.arange(3), [] if name == ONNX else [1, 2]):
        assert backend.predict(WINDOWS[groups]) == pytest.approx(theirs[groups], abs=1e-4)


def test_the_torchscript_file_is_read_alone(small: Path, expected: Any, load: Load) -> None:
    (small / CHECKPOINT).unlink()
    assert (load("pytorch", small).predict(WINDOWS) == expected).all()


@pytest.mark.parametrize("sides", [[1, 1, 16, 16, 16], None])
def test_a_saved_model_of_one_window_is_fed_one(
    sides: list[int] | None,
    small: Path,
    small_tensors: dict[str, Any],
    small_volumes: list[Any],
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the official one, which was made from the ONNX file of one window. None: the signature does not say."""
    import tensorflow as tf

    whole = load("tensorflow", small).submit(Batch(small_volumes)).result()
    one = tf.TensorSpec(sides, tf.float32, name="input")
    monkeypatch.setattr(tf, "TensorSpec", lambda *_, **__: one)
    write_tensorflow(small / SAVED_MODEL, UNetConfig((4, 6, 8, 10), 16), small_tensors)
    backend = load("tensorflow", small)
    assert backend.windows == 1
    for ours, theirs in zip(backend.submit(Batch(small_volumes)).result(), whole, strict=True):
        assert np.mean(ours != theirs) < 1e-3


def test_a_checkpoint_holds_what_training_left_beside(small: Path, expected: Any, load: Load) -> None:
    content = torch.load(small / CHECKPOINT)
    optimizer = {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]}
    more = {"epoch": 7, "best_mean_dice": np.float64(0.86), "optimizer_state_dict": optimizer}
    torch.save(more | content, small / CHECKPOINT)
    assert (load("pytorch", small).predict(WINDOWS) == expected).all()


def test_activations_that_overflow_are_an_error(small: Path, small_tensors: dict[str, Any], load: Load) -> None:
    for backend in ("onnxruntime", "pytorch"):
        volume = np.zeros((16, 16, 16), np.float32)
        volume[3, 3, 3] = np.nan
        with pytest.raises(ValueError, match="not all finite"):
            load(backend, small).submit(Batch([volume])).result()


def _brats(folder: Path) -> None:
    """The retired model was of four channels of MRI and windows of 224 x 224 x 160."""
    state = {"conv_blocks_context.0.blocks.0.conv.weight": torch.zeros(32, 4, 3, 3, 3)}
    torch.save({"epoch": 1, "state_dict": state}, folder / CHECKPOINT)


def _brats_onnx(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    sides = [224, 224, 160]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["output"])],
        "brats",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch_size", 4, *sides])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch_size", 4, *sides])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7), folder / ONNX)


def _other_names(folder: Path) -> None:
    import onnx

    model = onnx.load(folder / ONNX)
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    onnx.save(model, folder / ONNX)


def _changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = torch.load(folder / CHECKPOINT)
        change(content[CHECKPOINT_KEY])
        torch.save(content, folder / CHECKPOINT)

    return apply


def _not_a_script(folder: Path) -> None:
    (folder / CHECKPOINT).unlink()
    (folder / TORCHSCRIPT).write_bytes(b"\0" * 100)


def _brats_tensorflow(folder: Path) -> None:
    import tensorflow as tf

    shutil.rmtree(folder / TENSORFLOW)
    takes = tf.TensorSpec([1, 4, 224, 224, 160], tf.float32, name="input")
    call = tf.function(lambda x: {"output": x + 1.0}, input_signature=[takes])
    tf.saved_model.save(tf.Module(), str(folder / TENSORFLOW), signatures={"serving_default": call})


def _no_signature(folder: Path) -> None:
    import tensorflow as tf

    shutil.rmtree(folder / TENSORFLOW)
    tf.saved_model.save(tf.Module(), str(folder / TENSORFLOW))


def _larger(folder: Path) -> None:
    config = UNetConfig((4, 6, 8, 10), 32)
    write_onnx(folder / ONNX, config, random_tensors(config, 1))


def _four_segments_onnx(folder: Path) -> None:
    """One more than KiTS19 has, of the right window."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Concat", ["input"] * 4, ["output"], axis=1)],
        "four",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch_size", 1, 16, 16, 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch_size", 4, 16, 16, 16])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7), folder / ONNX)


def _four_segments_tensorflow(folder: Path) -> None:
    import tensorflow as tf

    shutil.rmtree(folder / TENSORFLOW)
    takes = tf.TensorSpec([None, 1, 16, 16, 16], tf.float32, name="input")
    call = tf.function(lambda x: {"output": tf.concat([x] * 4, 1)}, input_signature=[takes])
    tf.saved_model.save(tf.Module(), str(folder / TENSORFLOW), signatures={"serving_default": call})


BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "brats": ("pytorch", _brats, rf"{CHECKPOINT}: .*{CHECKPOINT_KEY}"),
    "brats onnx": ("onnxruntime", _brats_onnx, rf"{ONNX}: input is \[n, 4, 224, 224, 160\], expected a window of one"),
    "brats tensorflow": ("tensorflow", _brats_tensorflow, r"takes \[n, 4, 224, 224, 160\], expected a window of one"),
    "segments onnx": ("onnxruntime", _four_segments_onnx, rf"{ONNX}: gives \[1, 4, 16, 16, 16\] for one window"),
    "segments tensorflow": ("tensorflow", _four_segments_tensorflow, r"gives \[1, 4, 16, 16, 16\] for one window"),
    "segments pytorch": (
        "pytorch",
        _changed(lambda s: s.update({"output.conv.0.weight": torch.zeros(4, 4, 1, 1, 1)})),
        r"tensor 'output\.conv\.0\.weight' has shape \[4, 4, 1, 1, 1\], expected \[3, 4, 1, 1, 1\]",
    ),
    "names": ("onnxruntime", _other_names, rf"{ONNX}: inputs \['image'\]"),
    "window": ("onnxruntime", _larger, rf"{ONNX}: input is \[n, 1, 32, 32, 32\], expected .* 16 voxels a side"),
    "missing": (
        "pytorch",
        _changed(lambda s: s.pop("output.conv.0.bias")),
        r"tensor 'output\.conv\.0\.bias' .* missing",
    ),
    "surplus": ("pytorch", _changed(lambda s: s.update(x=torch.zeros(1))), "tensor 'x' is unknown"),
    "sizes": (
        "pytorch",
        lambda f: write_config(f / FILE, UNetConfig((4, 6, 8, 12), 16)),
        r"bottleneck\.conv1\.0\.weight",
    ),
    "no checkpoint": ("pytorch", lambda f: [(f / n).unlink() for n in (CHECKPOINT, TORCHSCRIPT)], "no such file"),
    "no onnx": ("onnxruntime", lambda f: [(f / name).unlink() for name in (ONNX, ONNX_ONE)], "no such file"),
    "no folder": ("tensorflow", lambda f: shutil.rmtree(f / TENSORFLOW), rf"{SAVED_MODEL}: no such file"),
    "no script": ("pytorch", _not_a_script, rf"{TORCHSCRIPT}: not a TorchScript file"),
    "no signature": ("tensorflow", _no_signature, "has no signature serving_default of one input"),
    "variables": (
        "tensorflow",
        lambda f: shutil.rmtree(f / TENSORFLOW / "variables"),
        rf"{SAVED_MODEL}: TensorFlow cannot",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_files_are_named(fault: str, small: Path, load: Load) -> None:
    name, change, message = BAD[fault]
    change(small)
    with pytest.raises(InputError, match=message):
        load(name, small)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("onnxruntime", {"dtype": "bfloat16"}, "dtype 'bfloat16': the file holds float32"),
        ("onnxruntime", {"devices": ("cuda",)}, "device 'cuda'"),
        ("tensorflow", {"dtype": "float16"}, "dtype 'float16'"),
        ("pytorch", {"dtype": "int8"}, "dtype 'int8': use one of float32, bfloat16, float16"),
        ("pytorch", {"devices": ("cpu", "cpu")}, "this backend computes on one device"),
    ],
)
def test_what_a_backend_does_not_have_is_refused(
    name: str, options: dict[str, Any], message: str, small_files: Path, load: Load
) -> None:
    with pytest.raises(InputError, match=message):
        load(name, small_files, **options)


def test_tensorflow_takes_no_gpu_but_the_first(monkeypatch: pytest.MonkeyPatch, small_files: Path) -> None:
    from bench_3d_unet import backend_tensorflow

    monkeypatch.setattr(backend_tensorflow.runtime, "check_options", lambda *_: None)
    with pytest.raises(InputError, match="device 'cuda:1': TensorFlow computes a SavedModel on the first GPU"):
        backend_tensorflow.Backend(BackendOptions(small_files, devices=("cuda:1",)))


def test_a_backend_can_be_closed_before_it_is_loaded(small_files: Path) -> None:
    from bench_3d_unet.backend_onnxruntime import Backend as Onnx
    from bench_3d_unet.backend_tensorflow import Backend as TensorFlow
    from bench_3d_unet.pytorch.backend import Backend as PyTorch

    for build in (Onnx, TensorFlow, PyTorch):
        build(BackendOptions(small_files)).close()
