"""Writes golden/torchvision.json: what torchvision's RetinaNet detects with weights and images that follow from a seed,
and golden/torchvision.onnx: a small one of torchvision's, exported by PyTorch, post-processing included.

`pip install torchvision==0.28.0 onnx onnxscript`, then `python tests/make_golden.py`. The tests need only the files:
they see that our network, anchors, box coding, thresholds and NMS, which do without torchvision, find the same, and
that ONNX Runtime's backend reads a file that nothing of ours wrote.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench_retinanet.config import RetinaNetConfig, weight_shapes

CONFIG = replace(RetinaNetConfig(), layers=(1, 1, 1, 1), classes=10, image=192, anchor=16)
"""torchvision fixes the widths of its ResNeXt; strides are 8, 16, 32, 64 and 96."""
IMAGES = 3
FILE = Path(__file__).with_name("golden") / "torchvision.json"
EXPORT = FILE.with_suffix(".onnx")
SMALL_CLASSES, SMALL_SIDE = 6, 96
"""Of the exported model."""


def tensors() -> dict[str, npt.NDArray[np.float32]]:
    """By the official names; frozen batch normalisation is far from doing nothing."""
    rng = np.random.default_rng(7)
    return {name: _random(name, shape, rng) for name, shape in weight_shapes(CONFIG).items()}


def _random(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    values = rng.standard_normal(shape, np.float32)
    if len(shape) == 1:
        values = np.exp(0.2 * values) if name.endswith(("running_var", ".weight")) else 0.1 * values
        return np.asarray(values - 5.5 if name.endswith("cls_logits.bias") else values, np.float32)
    values -= values.mean(axis=1, keepdims=True) if shape[1] > 3 else 0
    gain = {"cls_logits": 2.6, "bbox_reg": 1.5, "inner_blocks": 0.5, "layer_blocks.2": 4.0, "p6": 2.5, "p7": 7.0}
    scale = next((value for key, value in gain.items() if key in name), 1.3)
    return np.asarray(values * (scale / np.sqrt(np.prod(shape[1:]))), np.float32)


def pictures() -> npt.NDArray[np.float32]:
    """[n, 3, side, side] from 0 to 1: patches of colour with grain, from integers alone."""
    rng = np.random.default_rng(8)
    side = CONFIG.image
    patches = rng.integers(0, 200, (IMAGES, 3, side // 12, side // 12)).repeat(12, axis=2).repeat(12, axis=3)
    return ((patches + rng.integers(0, 56, patches.shape)) / 255).astype(np.float32)


def torchvision_name(name: str) -> str:
    """Of an official tensor in torchvision, where convolutions have a layer more around them."""
    parts = name.split(".")
    if "blocks" in name and "extra" not in name:
        parts.insert(4, "0")
    if ".conv." in name and name.startswith("head."):
        at = parts.index("conv") + 1
        parts[at : at + 1] = [str(int(parts[at]) // 2), "0"]
    return ".".join(parts)


def build() -> Any:
    """torchvision's model with the same weights."""
    import torch
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.resnet import Bottleneck, ResNet
    from torchvision.ops import FrozenBatchNorm2d
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    body = ResNet(Bottleneck, [*CONFIG.layers], groups=32, width_per_group=4, norm_layer=FrozenBatchNorm2d)
    extra = LastLevelP6P7(CONFIG.channels, CONFIG.channels)  # as wide as the pyramid, so they read P5
    backbone = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=extra)
    sides = [CONFIG.anchor << level for level in range(5)]
    sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in sides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    side = CONFIG.image
    model = RetinaNet(backbone, CONFIG.classes, min_size=side, max_size=side, anchor_generator=anchors)
    state = {torchvision_name(name): torch.from_numpy(value) for name, value in tensors().items()}
    model.load_state_dict(state, strict=True)
    return model.eval()


def build_small() -> Any:
    """torchvision's RetinaNet behind three convolutions, whose weights are small enough for an ONNX file to be kept."""
    import torch
    from torch import nn
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.retinanet import RetinaNet

    torch.manual_seed(3)
    backbone: Any = nn.Sequential(*(nn.Conv2d(inputs, 8, 3, 2, 1) for inputs in (3, 8, 8)))
    backbone.out_channels = 8
    anchors = AnchorGenerator(((16, 24, 36),), ((0.5, 1.0, 2.0),))
    options = {"min_size": SMALL_SIDE, "max_size": SMALL_SIDE, "anchor_generator": anchors}
    model = RetinaNet(backbone, SMALL_CLASSES, **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 1.4 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1)
    nn.init.constant_(model.head.classification_head.cls_logits.bias, -6.0)
    return model.eval()


def small_pictures() -> npt.NDArray[np.float32]:
    """As `pictures`, for the exported model; the last shows nothing."""
    found = np.ascontiguousarray(pictures()[:, :, :SMALL_SIDE, :SMALL_SIDE])
    found[-1] = 0.5
    return found


def export() -> list[dict[str, Any]]:
    """Writes EXPORT by the official names for one image, and gives what torchvision detects itself."""
    import torch

    class OneImage(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = build_small()

        def forward(self, images: Any) -> Any:
            found = self.model(list(images.unbind(0)))[0]
            return found["boxes"], found["scores"], found["labels"]

    model = OneImage().eval()
    images = torch.from_numpy(small_pictures())
    torch.onnx.export(
        model,
        (images[:1],),
        str(EXPORT),
        input_names=["images"],
        output_names=["boxes", "scores", "labels"],
        opset_version=13,
        dynamo=False,
    )
    with torch.inference_mode():
        return [_plain(model.model([image])[0]) for image in images]


def _plain(found: Any) -> dict[str, Any]:
    boxes, scores = (found[name].double().numpy() for name in ("boxes", "scores"))
    return {"boxes": boxes.round(3).tolist(), "scores": scores.round(6).tolist(), "labels": found["labels"].tolist()}


def main() -> None:
    """Of each image: boxes, scores and labels, best first."""
    import torch
    import torchvision

    with torch.inference_mode():
        found = [_plain(one) for one in build()([torch.from_numpy(image) for image in pictures()])]
    golden: dict[str, Any] = {"torchvision": torchvision.__version__.split("+")[0], "images": found}
    FILE.parent.mkdir(exist_ok=True)
    golden["exported"] = export()
    FILE.write_text(json.dumps(golden) + "\n")
    print({name: [len(image["labels"]) for image in golden[name]] for name in ("images", "exported")})


if __name__ == "__main__":
    main()
