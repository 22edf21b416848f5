"""Official weights and data: what they are, where they come from and where they go."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench_3d_unet.kits import IMAGING, SEGMENTATION
from bench_3d_unet.official import CASES, CHECKPOINT, COPY, ONNX, ONNX_ONE, SAVED_MODEL, TENSORFLOW, TORCHSCRIPT
from bench_3d_unet.prepared import INDEX, source
from loadgen.contracts import InputError
from loadgen.harness.assets import archive
from loadgen.harness.assets.asset import Asset

_ZENODO = "https://zenodo.org/records/5597155/files"
_IMAGES = "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images"
_OLD_IMAGES = "https://kits19.sfo2.digitaloceanspaces.com"
_LABELS = "https://raw.githubusercontent.com/neheller/kits19/456b293435b25303bbc7995f094f83a0afdff0eb/data"
_LICENCE = "CC BY-NC-SA 4.0"
_LABEL_FILES = {
    "case_00000": (775_587, "d1019d9a690e193e167cadf3518499e9ed54c1c7757ce520152a3ed072159e09"),
    "case_00003": (379_402, "fcbb1e23746beab53c7fbd97915a855ce1f15be7c76b42affa0b30ccca63f98c"),
    "case_00005": (1_041_381, "bb8ced0aeac5f339f8981892fa0132ad3c806a37fbb33464b4b3af577f14e909"),
    "case_00006": (249_476, "6590efb3e5d3090dda350da2acef0d01e3cdb0b34764e878209daa72f8ba8bd0"),
    "case_00012": (140_964, "cc769adcd9c617d95a81c0208510a1f2534328a8275433d58b20d17d3e5ab60c"),
    "case_00024": (135_119, "bbf6a7d8713d0b1fa41c4b546a8013b65261c0657379af2d851af4fbd1ed7a48"),
    "case_00034": (174_017, "a4e4e6f2c52b5253cde80b9b32b970bfc2b83fa97d29b1fbc3eb00ae056fc2ec"),
    "case_00041": (103_314, "a513d5fa675323b739520a4a5a38f7f3fbf23c2d2396e7dd7be0e890feba579f"),
    "case_00044": (152_896, "dc851aea8d1a8921a8e5c6281784ae6b2b14fc14d3d2cfc01658240d58ff739d"),
    "case_00049": (896_777, "45c0a7bcc44edf478c6557ecac05319b239847fe68738301a0713ae13e5a9ed0"),
    "case_00052": (860_917, "062855b421c08ef6f205741fe5ce727e059f9d04b543f530a77edd00f5edee84"),
    "case_00056": (182_198, "a07de54540c0e8fbf62e0e47d02752a789e4929da53baa9a513c8348edb41693"),
    "case_00061": (59_432, "f0ac28b3fae9303378f40121ee4ccc725a69c9e88a899e5d634e1ff0dfd20469"),
    "case_00065": (190_388, "779e39d3131b043be241fe6beb44abcbcff54e4f4eb4964a4147cb3c406c8fdd"),
    "case_00066": (597_100, "377d98684bb0469c231866558a1323073c04c05a4b010413da03c1e6927e8e94"),
    "case_00070": (126_108, "08040019380efe132cdab8b7641650d4f369cd64c9c953edd411316bc0dcd60c"),
    "case_00076": (105_766, "bcb3e2618a10c1f25a3b18fa3e0d300f505f44cff32f59d65b67d3be5e16c2e4"),
    "case_00078": (538_585, "5ad3f34d5a1c7b5ce988748b0e65f6859d87de9aef597412942cd3d1e6d1161a"),
    "case_00080": (137_429, "62a9feac012eb13c683512f37d7c5a1ed8234f4c07193dd8e9c35b94da119137"),
    "case_00084": (394_399, "fc82b04e2bd9dc505bc48b06de806e917da95dd4c0b5a67d4fbaf905b2e2cab6"),
    "case_00086": (301_891, "34a5dbcd684998d0dfb38e7fb08941faf3aa631953a058c63c19f8511c205c88"),
    "case_00087": (97_327, "7498fd9314fb7027b954342530e4a30f30648bbc7760233c2640347a048ff186"),
    "case_00092": (196_674, "70acffdfda69fb4fe97a8962f7d8a994b445872cdeec79796046b9dcf0829255"),
    "case_00111": (292_498, "97e97a802364be4be3c274cc064f584f505fea00a33ed05bb49c66ca82c91347"),
    "case_00112": (227_812, "3956f828872775f378c48ec27ab75dd385d4f9dc180ddd37387e2abbda55a72e"),
    "case_00125": (113_159, "4472af57d6af10c1d6d9ed967bc01fb3a13006706e3067a6a3f9c0494b1782eb"),
    "case_00128": (307_906, "b7bcf93d310c9ca46a741e15bebaa5b2e241a15a432bd91c4fac49403b68cb25"),
    "case_00138": (155_518, "aa3f75cd75e42261355ef46fdfcaf759226bf5a9cf1c51b35114aa88395f9ce5"),
    "case_00157": (344_893, "3ed2c679767dd9ae510db1f86218cebe504aab0ff82316080eecc138ab7af052"),
    "case_00160": (723_271, "56ba118c0aa8b3b0ef07cb21495a43ce9adcf8eba13568440fc5eb98f5f6dac9"),
    "case_00161": (97_779, "880efb6108a9d7dd0be34ae2fc5b3a52dba8835cb2844483df0ee86fd4fb7304"),
    "case_00162": (147_257, "93ef37ed63f4720ba6d406ee90d2ba53ac93329cdf886183d374376ab2752f89"),
    "case_00169": (155_606, "80671b01eb5bbaf3102f0f4991aa602141d5f5c8c7e431d18ed98ff4434f8abc"),
    "case_00171": (190_618, "a859e3e7453d02f785932cd4de5fbc22c4040d6b20b40ecbb6ae7a170c564404"),
    "case_00176": (76_102, "fbabfc5dfac0598a7cba319fb1067e2a7f151428bba591782b79b12bffc02c95"),
    "case_00185": (355_129, "04a5d298bf12149983cac7992cb795db77986ee09f50161774cbede766e48f92"),
    "case_00187": (151_948, "756013b57501e08b87e027450cb83a58beb2165e02ed4f46e1ef08d5b7f23e83"),
    "case_00189": (237_456, "1bc2b3a2496011dedfe3c1aaa1fd3d52a4d4947a8d9ca997f8385f4fc4ff7d2e"),
    "case_00198": (384_016, "14f55d38bd81243edb0bd543897f0d321c73d8aa78ca690e112702447eae0063"),
    "case_00203": (805_887, "cf57478623972e36e5682ccd8d4abe334a5f94208c166782571c83d0855f5ce7"),
    "case_00206": (94_798, "1520f467f1b617b96f2fe932bde3955b3f4949ef6b32a6ee50c7b972a5de36e8"),
    "case_00207": (207_255, "9e94efdf1519e76f70ea4970a7c10d496385ef35d48ed8c31fb31307f7cce80f"),
}
"""Case -> bytes and SHA-256 of its segmentation in KiTS19's repository."""


def _case(case: str) -> tuple[Asset, Asset]:
    size, checksum = _LABEL_FILES[case]
    imaging = Asset(
        path=f"data/raw/{case}/{IMAGING}",
        address=f"{_IMAGES}/{case}.nii.gz",
        licence=_LICENCE,
        mirrors=(f"{_OLD_IMAGES}/master_{case.removeprefix('case_')}.nii.gz",),
        gate="read the licence, CC BY-NC-SA 4.0: not for commercial use",
    )
    segmentation = Asset(
        path=f"data/raw/{case}/{SEGMENTATION}",
        address=f"{_LABELS}/{case}/{SEGMENTATION}",
        licence=_LICENCE,
        bytes=size,
        sha256=checksum,
    )
    return imaging, segmentation


DATA = tuple(asset for case in CASES if case != COPY for asset in _case(case))
WEIGHTS = (
    Asset(
        path=f"model/{ONNX}",
        address=f"{_ZENODO}/{ONNX}",
        licence="CC BY 4.0",
        md5="82f0618fde78f9839e7c712274019b4a",
        backends=("onnxruntime",),
    ),
    Asset(
        path=f"model/{CHECKPOINT}",
        address=f"{_ZENODO}/{CHECKPOINT}",
        licence="CC BY 4.0",
        md5="09c696e3ec13d83c628498bcd831eb5b",
        backends=("pytorch",),
    ),
    Asset(
        path=f"model/{TENSORFLOW}.zip",
        address=f"{_ZENODO}/{TENSORFLOW}.zip",
        licence="CC BY 4.0",
        md5="9497108bd0504ae8f85a764a807b76a9",
        backends=("tensorflow",),
    ),
)
ASSETS = (*DATA, *WEIGHTS)
"""42 cases: the 43rd is made of one of them. MD5 checksums are those that MLCommons' own automation compares with; the
images have none, but gzip's own."""


def prepare(folder: Path) -> None:
    """Check that `folder` holds KiTS19, preprocessed or not, and weights of one backend; unpack TensorFlow's.

    Raises InputError that lists what is missing, with its source.
    """
    wanted = [*_missing_data(folder), *_missing_weights(folder)]
    if wanted:
        raise InputError(
            "official files are missing. Get them by the command fetch, or name a folder with data/ and model/ by "
            "--data; data/preprocessed may hold the reference's preprocessed volumes instead:\n" + "\n".join(wanted)
        )
    packed = folder / "model" / f"{TENSORFLOW}.zip"
    if packed.is_file() and not (folder / "model" / SAVED_MODEL).is_file():
        unpack(packed)


def _missing_data(folder: Path) -> list[str]:
    raw = folder / "data" / "raw"
    if (folder / "data" / "preprocessed" / INDEX).is_file() and not raw.is_dir():
        return []
    files = (IMAGING, SEGMENTATION)
    missing = [case for case in CASES if not all((source(raw, case) / name).is_file() for name in files)]
    missing = [case for case in missing if case != COPY]
    where = f"{_IMAGES}/, {_LABELS}/"
    return [f"  {raw}/ {', '.join(missing)}: {' and '.join(files)} of each  ({where})"] if missing else []


def _missing_weights(folder: Path) -> list[str]:
    names = (*(Path(asset.path).name for asset in WEIGHTS), ONNX_ONE, TORCHSCRIPT, SAVED_MODEL)
    if any((folder / "model" / name).is_file() for name in names):
        return []
    lines = [f"  {folder / asset.path}  (--backend {asset.backends[0]} {asset.address})" for asset in WEIGHTS]
    return [" or\n".join(lines)]


def unpack(packed: Path) -> None:
    """The SavedModel's folder beside its archive. Raises InputError naming one that is damaged or holds none."""
    temporary = packed.with_name(f"{packed.name}.unpacked")
    archive.extract(packed, temporary)
    found = next(temporary.rglob(Path(SAVED_MODEL).name), None)
    if found is None:
        raise InputError(f"{packed}: holds no {Path(SAVED_MODEL).name}: fetch it again")
    target = packed.with_name(TENSORFLOW)
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    found.parent.rename(target)
    shutil.rmtree(temporary, ignore_errors=True)
