"""Official weights and data: what they are, where they come from and where they go."""

from __future__ import annotations

from pathlib import Path

from bench_sdxl.official import CALIBRATION, CAPTIONS, CLIP, INCEPTION, LATENTS, PIPE, SCHEDULERS, STATISTICS
from loadgen.contracts import InputError
from loadgen.harness.assets.asset import Asset
from loadgen.harness.standins.making import tell

_SUITE = "https://raw.githubusercontent.com/mlcommons/inference/v4.0"
_MODEL = "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main"
_OPEN = "CreativeML Open RAIL++-M"
_COCO = "CC BY 4.0 (COCO's annotations)"
_APACHE = "Apache-2.0"

DATA = (
    Asset(
        path=f"data/{CAPTIONS}",
        address=f"{_SUITE}/text_to_image/coco2014/captions/captions_source.tsv",
        licence=_COCO,
        bytes=862_324,
        md5="24ba91c1e0fc04e70895385b4a57dca1",
    ),
    Asset(
        path=f"data/{LATENTS[0]}",
        address=f"{_SUITE}/text_to_image/tools/latents.npy",
        licence=_APACHE,
        bytes=262_272,
        md5="e3ca8d78fda4f6001ef1dd2dea77ab05",
    ),
    Asset(
        path=f"data/{STATISTICS}",
        address=f"{_SUITE}/text_to_image/tools/val2014.npz",
        licence=_APACHE,
        md5="b399b117828bedc564d0aaaf308bcc05",
    ),
)
CALIBRATION_IDS = Asset(
    path=f"data/{CALIBRATION}",
    address=f"{_SUITE}/calibration/COCO-2014/coco_cal_captions_list.txt",
    licence=_APACHE,
    bytes=3_431,
    md5="35061c423b4219445777cd6db456d0dd",
    dtypes=("float8",),  # for other ways to quantise than this backend's, which looks at the negative prompt only
)
SCORERS = (
    Asset(
        path=f"model/{CLIP}",
        address="https://openaipublic.azureedge.net/clip/models/"
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
        licence="MIT",
        sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    Asset(
        path=f"model/{INCEPTION}",
        address="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        licence=_APACHE,
        bytes=95_628_359,
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
)


def _part(path: str, size: int, sha256: str, dtypes: tuple[str, ...] = ()) -> Asset:
    folder = SCHEDULERS[0].removesuffix("scheduler") if path.startswith("scheduler/") else f"{PIPE}/"
    return Asset(f"model/{folder}{path}", f"{_MODEL}/{path}", _OPEN, size, sha256=sha256, dtypes=dtypes)


_HALF, _WHOLE = ("float16",), ("bfloat16", "float32", "float8")
_TABLE = "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"
_WORDS = "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349"
MODEL = (
    _part("scheduler/scheduler_config.json", 479, "af3e45a949aff8b8341ab8b811429ec03fee857a700a1d9477363e4fff9666e2"),
    _part("text_encoder/config.json", 565, "39b8b2e4b1949e36969caa425b6c81c68bace99198dd9078ce05d16ad401fe7f"),
    _part("text_encoder_2/config.json", 575, "a892d1c3a69a7e9247a24de2bc1d5891e3109a54696e53be20093af671072c34"),
    _part("tokenizer/merges.txt", 524_619, _TABLE),
    _part("tokenizer/vocab.json", 1_059_962, _WORDS),
    _part("tokenizer/tokenizer_config.json", 737, "19d7b034cb0cc3ce9766c2231373ab8aa8991fc72e2c8f76558bfaae3de0d563"),
    _part("tokenizer_2/merges.txt", 524_619, _TABLE),
    _part("tokenizer_2/vocab.json", 1_059_962, _WORDS),
    _part("tokenizer_2/tokenizer_config.json", 725, "c9d23941f76a41cbd50eda9290f57be7828f0a7a677939e9ef181f7e12bd1bdf"),
    _part("unet/config.json", 1_680, "30ebc70750223e59006f7f2b4e1e6c102570aa19a9c4ae3e1fbe7591332dbae6"),
    _part("vae/config.json", 642, "0b331c8ac22ded5f9997a144a575c1d113d6169aff262c353f39015bd24a6264"),
    _part(
        "text_encoder/model.fp16.safetensors",
        246_144_152,
        "660c6f5b1abae9dc498ac2d21e1347d2abdb0cf6c0c0c8576cd796491d9a6cdd",
        _HALF,
    ),
    _part(
        "text_encoder_2/model.fp16.safetensors",
        1_389_382_176,
        "ec310df2af79c318e24d20511b601a591ca8cd4f1fce1d8dff822a356bcdb1f4",
        _HALF,
    ),
    _part(
        "unet/diffusion_pytorch_model.fp16.safetensors",
        5_135_149_760,
        "83e012a805b84c7ca28e5646747c90a243c65c8ba4f070e2d7ddc9d74661e139",
        _HALF,
    ),
    _part(
        "vae/diffusion_pytorch_model.fp16.safetensors",
        167_335_342,
        "bcb60880a46b63dea58e9bc591abe15f8350bde47b405f9c38f4be70c6161e68",
        _HALF,
    ),
    _part(
        "text_encoder/model.safetensors",
        492_265_168,
        "5c3d6454dd2d23414b56aa1b5858a72487a656937847b6fea8d0606d7a42cdbc",
        _WHOLE,
    ),
    _part(
        "text_encoder_2/model.safetensors",
        2_778_702_264,
        "3a6032f63d37ae02bbc74ccd6a27440578cd71701f96532229d0154f55a8d3ff",
        _WHOLE,
    ),
    _part(
        "unet/diffusion_pytorch_model.safetensors",
        0,
        "357650fbfb3c7b4d94c1f5fd7664da819ad1ff5a839430484b4ec422d03f710a",
        _WHOLE,
    ),
    _part(
        "vae/diffusion_pytorch_model.safetensors",
        334_643_268,
        "1598f3d24932bcfe6634e8b618ea1e30ab1d57f5aad13a6d2de446d2199f2341",
        _WHOLE,
    ),
)
ASSETS = (*DATA, *MODEL, *SCORERS, CALIBRATION_IDS)
"""The model is Hugging Face's, which the official app takes where it finds no other: MLCommons' own copies in 16 and in
32 bits lie in folders of the same form, and are taken where they are put. Checksums of the weights are those that
others have published, the one of `val2014.npz` is a submitter's.
"""


def prepare(folder: Path) -> None:
    """Check that `folder` holds the official files, weights in 16 or in 32 bits. Says on stderr if a score is not
    possible, because the scorers' weights are missing.

    Raises InputError that lists what is missing, with its source.
    """
    needed = [*DATA, *(asset for asset in MODEL if not asset.dtypes and not _is_elsewhere(folder, asset))]
    wanted = [_line(asset, folder) for asset in needed if not (folder / asset.path).is_file()]
    sets = [[asset for asset in MODEL if asset.dtypes == dtypes] for dtypes in (_WHOLE, _HALF)]
    if all(any(not _is_there(folder, asset) for asset in weights) for weights in sets):
        wanted.append(" or\n".join("\n".join(_line(asset, folder) for asset in weights) for weights in sets))
    unscored = [_line(asset, folder) for asset in SCORERS if not (folder / asset.path).is_file()]
    if wanted:
        raise InputError(
            "official files are missing. Get them by the command fetch, or name a folder with data/ and model/ "
            "by --data:\n" + "\n".join(wanted + [f"{line}, for accuracy only" for line in unscored])
        )
    if unscored:
        tell("no accuracy test can be scored without these files; performance tests need none:\n" + "\n".join(unscored))


def _is_elsewhere(folder: Path, asset: Asset) -> bool:
    """Does the folder have it in Hugging Face's place?"""
    plain = asset.path.replace(f"{PIPE}/", "").replace(SCHEDULERS[0], SCHEDULERS[1])
    return (folder / plain).is_file()


def _is_there(folder: Path, asset: Asset) -> bool:
    return (folder / asset.path).is_file() or _is_elsewhere(folder, asset)


def _line(asset: Asset, folder: Path) -> str:
    options = [f"--dtype {' or '.join(asset.dtypes)}"] if asset.dtypes else []
    return f"  {folder / asset.path}  ({' '.join([*options, asset.address])})"
