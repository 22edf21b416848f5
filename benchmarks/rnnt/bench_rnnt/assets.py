"""Official weights and data: what they are, where they come from and where they go."""

from __future__ import annotations

from pathlib import Path

from bench_rnnt.manifest import UNPACKED
from bench_rnnt.official import CHECKPOINT, MANIFEST
from loadgen.contracts import InputError
from loadgen.harness.assets import archive
from loadgen.harness.assets.asset import Asset

_PUBLISHED = "DistributedDataParallel_1576581068.9962234-epoch-100.pt"
_MLCOMMONS = "https://raw.githubusercontent.com/mlcommons/inference"

AUDIO = Asset(
    path="data/dev-clean.tar.gz",
    address="https://www.openslr.org/resources/12/dev-clean.tar.gz",
    licence="CC BY 4.0",
    md5="42e2234ba48799c1f50f24a7926300a1",
    mirrors=("https://us.openslr.org/resources/12/dev-clean.tar.gz",),
)
LIST = Asset(
    path=f"data/{MANIFEST}",
    address=f"{_MLCOMMONS}/v4.0/speech_recognition/rnnt/{MANIFEST}",
    licence="Apache-2.0",
    bytes=1_429_227,
    md5="f185f584928dd329c1ab254c617a0e21",
)
WEIGHTS = Asset(
    path=f"model/{CHECKPOINT}",
    address=f"https://zenodo.org/records/3662521/files/{_PUBLISHED}",
    licence="licence: see the record's page",
    mirrors=(f"https://mlperf-public.s3.us-west-2.amazonaws.com/{_PUBLISHED}",),
    gate="no checksum is published; compare the file with the size and MD5 on the record's page",
)
ASSETS = (AUDIO, LIST, WEIGHTS)


def prepare(folder: Path) -> None:
    """Check that `folder` holds the official files; unpack the archive, unless the audio lies there already.

    Raises InputError that lists what is missing, with its source.
    """
    audio = any((folder / "data" / name).is_dir() for name in (UNPACKED, "LibriSpeech", "dev-clean-wav"))
    wanted = [asset for asset in ASSETS if not (folder / asset.path).is_file() and not (asset is AUDIO and audio)]
    if wanted:
        raise InputError(
            "official files are missing. Get them by the command fetch, or name a folder with data/ and model/ "
            "by --data; data/ may hold LibriSpeech/ or dev-clean-wav/ in the archive's place:\n"
            + "\n".join(f"  {folder / asset.path}  ({asset.address})" for asset in wanted)
        )
    if not audio:
        archive.extract(folder / AUDIO.path, folder / "data" / UNPACKED)
