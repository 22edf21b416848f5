"""LibriSpeech and its manifest are read as they are published, and what is wrong with them is said."""

from __future__ import annotations

import copy
import json
import tarfile
import wave as wave_files
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_rnnt import assets
from bench_rnnt.dataset import LONGEST, Dataset
from bench_rnnt.official import MANIFEST
from loadgen.contracts import InputError

Writer = Callable[..., Path]
FIRST = "84-121123-0000.flac"


def noise(samples: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-3000, 3000, samples).astype(np.int16)


def rewritten(folder: Path, change: Callable[[Any], None]) -> None:
    manifest = folder / "data" / MANIFEST
    document = json.loads(manifest.read_text())
    change(document)
    manifest.write_text(json.dumps(document))


def test_flac_is_read_in_the_manifests_order(librispeech: Writer) -> None:
    waves = [noise(5_000), noise(8_000, 1), noise(6_001, 2)]
    folder = librispeech([(waves[0], "it's one"), (waves[1], "two"), (waves[2], "three")])
    rewritten(folder, lambda document: document.reverse())
    dataset = Dataset(folder)
    dataset.load([0, 1, 2])
    assert [utterance.transcript for utterance in dataset.utterances] == ["three", "two", "it's one"]
    batch = dataset.gather(np.array([2, 1, 0]))
    rows = batch.padded
    assert (rows.dtype, rows.shape) == (np.int16, (3, 8_000))
    for row, (wave, length) in enumerate(zip(waves, batch.lengths, strict=True)):
        assert length == len(wave)
        assert (rows[row, :length] == wave).all()
        assert (rows[row, length:] == 0).all()
    assert dataset.costs(np.array([2, 0])).tolist() == [11, 13]


def write_wav(folder: Path, wave: Any) -> None:
    """By Python's own module, in the first utterance's place."""
    path = folder / "data" / "dev-clean-wav" / "84" / "121123" / "84-121123-0000.wav"
    path.parent.mkdir(parents=True)
    with wave_files.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(wave.tobytes())


def test_wav_files_are_taken_where_they_are(librispeech: Writer) -> None:
    """The manifest names these, and they go before FLAC."""
    folder, wave = librispeech([(noise(5_000), "one")]), noise(5_000, 7)
    write_wav(folder, wave)
    dataset = Dataset(folder)
    dataset.load([0])
    assert (dataset.gather(np.array([0])).waves[0] == wave).all()


def test_utterances_of_more_than_15_s_are_no_samples(librispeech: Writer) -> None:
    """Not even their files are looked for."""
    folder = librispeech([(noise(240_000), "fifteen"), (noise(5_000), "short")])

    def insert(document: Any) -> None:
        long = copy.deepcopy(document[0]) | {"original_duration": 35.0, "transcript": "long"}
        long["files"][0]["fname"] = "dev-clean-wav/1/2/1-2-0000.wav"
        document.insert(1, long)

    rewritten(folder, insert)
    dataset = Dataset(folder)
    assert [utterance.transcript for utterance in dataset.utterances] == ["fifteen", "short"]
    assert dataset.costs(np.array([0]))[0] == LONGEST.frames == 500


def test_unloaded_utterances_are_gone(librispeech: Writer) -> None:
    dataset = Dataset(librispeech([(noise(5_000), "one"), (noise(5_000), "two")]))
    dataset.load([0, 1])
    dataset.unload([0])
    dataset.gather(np.array([1]))
    with pytest.raises(KeyError, match="0"):
        dataset.gather(np.array([0]))


@pytest.mark.parametrize(
    ("wave", "form", "message"),
    [
        (noise(5_000), {"rate": 44_100}, "44100 Hz, 1 channels, PCM_16; expected 16000 Hz, 1 channel, PCM_16"),
        (np.zeros((5_000, 2), np.int16), {}, "16000 Hz, 2 channels, PCM_16; expected"),
        (noise(5_000), {"subtype": "PCM_24"}, "16000 Hz, 1 channels, PCM_24; expected"),
    ],
)
def test_audio_of_another_form_is_named(wave: Any, form: dict[str, Any], message: str, librispeech: Writer) -> None:
    dataset = Dataset(librispeech([(wave, "one")], **form))
    with pytest.raises(InputError, match=rf"sample 0, .*{FIRST}: {message}.*: put the official file there"):
        dataset.load([0])


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_file_that_ends_early_is_named(keep: float, librispeech: Writer) -> None:
    folder = librispeech([(noise(50_000), "one")])
    (path,) = folder.rglob("*.flac")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=rf"sample 0, .*{FIRST}: "):
        Dataset(folder).load([0])


def test_other_samples_than_the_manifests_are_named(librispeech: Writer) -> None:
    """Also an utterance of 35 s that the manifest calls short."""
    folder = librispeech([(noise(35 * 16_000), "one")])
    rewritten(folder, lambda document: document[0].update(original_duration=5.0, original_num_samples=80_000))
    with pytest.raises(InputError, match=rf"{FIRST}: 560,000 samples, the manifest says 80,000"):
        Dataset(folder).load([0])


def test_a_file_without_samples_is_named(librispeech: Writer) -> None:
    folder = librispeech([(noise(5_000), "one")])
    write_wav(folder, noise(0))
    with pytest.raises(InputError, match=r"84-121123-0000.wav: 0 samples, the manifest says 5,000"):
        Dataset(folder).load([0])


def _strange(document: Any) -> None:
    document[1]["transcript"] = "Café 7"


def _wordless(document: Any) -> None:
    document[1]["transcript"] = "  "


def _missing(document: Any) -> None:
    document[1]["files"][0]["fname"] = "dev-clean-wav/84/121123/84-121123-0009.wav"


def _empty(document: Any) -> None:
    document[1]["original_num_samples"] = 0


def _fast(document: Any) -> None:
    document[1]["files"][0]["speed"] = 1.1


def _untitled(document: Any) -> None:
    del document[1]["transcript"]


def _timeless(document: Any) -> None:
    document[1]["original_duration"] = None


def _nan(document: Any) -> None:
    document[1]["original_duration"] = float("nan")


def _negative(document: Any) -> None:
    document[1]["original_duration"] = -3.0


def _number(document: Any) -> None:
    document[1]["files"][0]["fname"] = 7


def _nameless(document: Any) -> None:
    document[1]["files"][0]["fname"] = ""


def _none(document: Any) -> None:
    document.clear()


def _long(document: Any) -> None:
    for utterance in document:
        utterance["original_duration"] = 15.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_strange, "entry 1, .*84-121123-0001.wav: '7Cé' in the transcript is not in the alphabet"),
        (_wordless, "entry 1, .*84-121123-0001.wav: the transcript '  ' has no word"),
        (_missing, "1 of 2 files are missing, the first is .*84-121123-0009.wav"),
        (_empty, "entry 1, .*84-121123-0001.wav: original_num_samples is 0, expected 481 or more"),
        (_fast, "entry 1 is no utterance with one file of speed 1"),
        (_untitled, r"entry 1 is no utterance .*KeyError\('transcript'\)"),
        (_timeless, "entry 1 is no utterance with one file of speed 1"),
        (_nan, "entry 1 is no utterance .*original_duration nan is no duration"),
        (_negative, "entry 1 is no utterance .*original_duration -3.0 is no duration"),
        (_number, "entry 1 is no utterance .*fname 7 is no path of a file"),
        (_nameless, "entry 1 is no utterance .*fname '' is no path of a file"),
        (_none, "holds no list of utterances"),
        (_long, "no utterance of up to 15 s"),
    ],
)
def test_a_wrong_manifest_is_named(change: Callable[[Any], None], message: str, librispeech: Writer) -> None:
    folder = librispeech([(noise(5_000), "one"), (noise(5_000), "two")])
    rewritten(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        Dataset(folder)
    assert str(folder / "data" / MANIFEST) in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("{}", "holds no list"), ("[7]", "entry 0 is no")])
def test_what_is_no_manifest_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=message):
        Dataset(tmp_path)
    with pytest.raises(InputError, match="no such file: put the official manifest there"):
        Dataset(tmp_path / "elsewhere")


def test_the_official_archive_is_unpacked_and_read(librispeech: Writer, tmp_path: Path) -> None:
    """As it is published: the audio below LibriSpeech/dev-clean, with transcripts and texts beside it."""
    source = librispeech([(noise(5_000), "one"), (noise(7_000), "two")])
    folder = tmp_path / "full"
    for name in ("data", "model"):
        (folder / name).mkdir(parents=True)
    (folder / "model" / "rnnt.pt").touch()
    (source / "data" / MANIFEST).rename(folder / "data" / MANIFEST)
    (source / "data" / "LibriSpeech" / "README.TXT").write_text("LibriSpeech")
    with pytest.raises(InputError, match=r"dev-clean.tar.gz  \(https://www.openslr.org"):
        assets.prepare(folder)
    with tarfile.open(folder / "data" / "dev-clean.tar.gz", "w:gz") as archive:
        archive.add(source / "data" / "LibriSpeech", "LibriSpeech")
    assets.prepare(folder)
    dataset = Dataset(folder)
    dataset.load([0, 1])
    assert dataset.gather(np.array([0, 1])).lengths.tolist() == [5_000, 7_000]
    before = sorted(folder.rglob("*"))
    (folder / "data" / "dev-clean.tar.gz").unlink()
    assets.prepare(folder)
    assert sorted(folder.rglob("*")) == [path for path in before if path.name != "dev-clean.tar.gz"]


def test_audio_that_was_unpacked_by_hand_is_enough(librispeech: Writer) -> None:
    folder = librispeech([(noise(5_000), "one")])
    (folder / "model").mkdir()
    (folder / "model" / "rnnt.pt").touch()
    assets.prepare(folder)
    assert Dataset(folder).total_count == 1
