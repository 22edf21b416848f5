"""KiTS19's files through preprocessing, the reference's files, and what is said of bad ones."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import pickletools
import shutil
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import nibabel
import numpy as np
import pytest

from bench_3d_unet import pickles, prepared
from bench_3d_unet.config import FILE, UNetConfig, write_config
from bench_3d_unet.dataset import Dataset
from bench_3d_unet.kits import read_scan
from bench_3d_unet.official import CASES as KITS
from bench_3d_unet.official import COPIED, COPY
from bench_3d_unet.preprocess import Volume, preprocess
from bench_3d_unet.standins import CASES
from bench_3d_unet.standins.generate import phantom, write_case
from loadgen.contracts import InputError

NAMES = ("case_00007", "case_00001")


@pytest.fixture(scope="session")
def two_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile's folder with the raw files of NAMES. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "model").mkdir()
    write_config(folder / "model" / FILE, UNetConfig((4, 6, 8, 10), window=16))
    for number, name in enumerate(NAMES):
        (folder / "data" / "raw" / name).mkdir(parents=True)
        write_case(folder / "data" / "raw" / name, phantom(3, number, (20, 24, 33), (4.0, 0.9, 1.1)))
    return folder


@pytest.fixture
def folder(two_cases: Path, tmp_path: Path) -> Path:
    """Its copy, to be changed."""
    return Path(shutil.copytree(two_cases, tmp_path / "profile"))


def opened(folder: Path) -> Dataset:
    """With all of its cases loaded."""
    data = Dataset(folder, cases=NAMES)
    data.load(range(2))
    return data


def test_samples_are_the_preprocessed_cases_in_order(folder: Path) -> None:
    data = opened(folder)
    batch = data.gather(np.array([1, 0]))
    for index, image in zip((1, 0), batch.volumes, strict=True):
        scan = phantom(3, index, (20, 24, 33), (4.0, 0.9, 1.1))
        spacing = tuple(np.array(scan.spacing, np.float32).tolist())  # as a header holds it
        volume = preprocess(scan.image, scan.label, spacing, 16)
        assert (image == volume.image[0]).all()
        assert (data.label(index) == volume.label[0]).all()
        assert data.shape(index) == volume.label[0].shape
    assert data.costs(np.array([0, 1])).tolist() == [2 * 2 * 3] * 2
    data.unload([0, 1])


def test_the_files_are_the_references(folder: Path) -> None:
    """Read as its code reads them: by pickle and nibabel themselves."""
    opened(folder)
    made = folder / "data" / "preprocessed"
    index = pickle.loads((made / "preprocessed_files.pkl").read_bytes())
    assert index["file_list"] == list(NAMES)
    for name in NAMES:
        entry = index["cases"][name]
        image, label = pickle.loads((made / f"{name}.pkl").read_bytes())
        assert {*entry} == {"original_affine", "reshaped_affine", "zoom_factor", "case", "image_shape"}
        assert entry["image_shape"] == image.shape == label.shape
        assert (entry["case"], image.dtype, label.dtype) == (name, np.float32, np.uint8)
        assert image.flags.writeable, "PyTorch warns of arrays that are not"
        for kind, values in (("imaging", image), ("segmentation", label)):
            copy = nibabel.load(made / "nifti" / name / f"{kind}.nii.gz")
            assert (np.asarray(copy.dataobj) == values[0]).all()
            assert copy.affine == pytest.approx(entry["reshaped_affine"])


def test_pickles_name_only_what_every_numpy_has(folder: Path) -> None:
    opened(folder)
    for file in (folder / "data" / "preprocessed").glob("*.pkl"):
        texts: list[str] = []
        named = set()
        for operation, argument, _ in pickletools.genops(file.read_bytes()):
            if operation.name == "STACK_GLOBAL":
                named.add(tuple(texts[-2:]))
            texts += [argument] if isinstance(argument, str) else []
        assert named <= {("numpy", "ndarray"), ("builtins", "bytearray")}


class Old(pickle._Pickler):  # type: ignore[name-defined]
    """Pickles as under NumPy 1: its private functions are elsewhere."""

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = getattr(value, "__module__", "")
        if not module.startswith("numpy._core"):
            super().save_global(value, name)
        elif self.proto < 4:
            self.write(f"c{module.replace('_core', 'core')}\n{value.__name__}\n".encode())
        else:
            for text in (module.replace("_core", "core"), value.__name__):
                self.save(text)
            self.write(pickle.STACK_GLOBAL)

    dispatch = {**pickle._Pickler.dispatch, FunctionType: save_global}  # type: ignore[attr-defined]  # noqa: RUF012


@pytest.mark.parametrize("pickler", [pickle.Pickler, Old])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_references_own_pickles_are_read(folder: Path, pickler: Any, protocol: int) -> None:
    """As NumPy 1 and 2 write them; without the raw files and our checksums."""
    expected = opened(folder).gather(np.arange(2)).volumes
    made = folder / "data" / "preprocessed"
    shutil.rmtree(folder / "data" / "raw")
    (made / prepared.CHECKSUMS).unlink()
    for file in made.glob("*.pkl"):
        value = pickle.loads(file.read_bytes())
        with file.open("wb") as opened_file:
            pickler(opened_file, protocol).dump(value)
        assert (b"numpy.core." if pickler is Old else b"numpy._core.") in file.read_bytes()
    again = opened(folder).gather(np.arange(2)).volumes
    assert all((a == b).all() for a, b in zip(again, expected, strict=True))


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch harmed",)


def test_a_pickle_runs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(folder)
    file = folder / "data" / "preprocessed" / f"{NAMES[0]}.pkl"
    file.write_bytes(pickle.dumps([Evil(), Evil()]))
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=r"case_00007\.pkl: not a pickle of arrays \(it names (posix|nt)\.system"):
        opened(folder)
    assert not (folder / "harmed").exists()


def test_cases_are_preprocessed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(folder)
    monkeypatch.setattr(prepared, "read_scan", lambda raw: pytest.fail(f"{raw} was read again"))
    opened(folder)


def test_a_changed_case_is_preprocessed_again(folder: Path) -> None:
    before = opened(folder)
    labels = [before.label(number) for number in range(2)]
    write_case(folder / "data" / "raw" / NAMES[1], phantom(4, 4, (20, 24, 33), (4.0, 0.9, 1.1)))
    after = opened(folder)
    assert [(after.label(number) == labels[number]).all() for number in range(2)] == [True, False]


def test_another_window_makes_all_again(folder: Path) -> None:
    opened(folder)
    write_config(folder / "model" / FILE, UNetConfig((4, 6, 8, 10), window=32))
    assert opened(folder).shape(0) == (32, 32, 32)


def test_several_processes_make_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = opened(folder).gather(np.arange(2)).volumes
    shutil.rmtree(folder / "data" / "preprocessed")
    monkeypatch.setattr(prepared, "_SMALL", 0)
    together = opened(folder).gather(np.arange(2)).volumes
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))
    said = capfd.readouterr().err
    assert "preprocessed case_0000" in said
    assert "2 of 2" in said


def test_a_bad_file_is_named_by_another_process_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(IMAGING)(folder / "data" / "raw" / NAMES[1])
    monkeypatch.setattr(prepared, "_SMALL", 0)
    with pytest.raises(InputError, match=r"case_00001/imaging\.nii\.gz: not a whole NIfTI file"):
        opened(folder)


def test_case_400_is_case_185(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    raw = folder / "data" / "raw"
    (raw / NAMES[0]).rename(raw / COPIED)
    data = Dataset(folder, cases=(COPIED, NAMES[1], COPY))
    assert (data.label(0) == data.label(2)).all()
    assert not (raw / COPY).exists()
    assert "case_00400 is case_00185 a second time" in capfd.readouterr().err


def test_the_43_cases_are_the_references() -> None:
    assert len(KITS) == len({*KITS}) == 43
    assert list(KITS) == sorted(KITS)
    assert KITS[-1] == COPY
    assert COPIED in KITS
    assert not {*KITS} & {*CASES}


def test_missing_cases_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"2 of 4 cases are missing: case_00002, case_00003\. Get them by"):
        Dataset(folder, cases=(*NAMES, "case_00002", "case_00003"))


def test_missing_preprocessed_cases_are_named(folder: Path) -> None:
    opened(folder)
    shutil.rmtree(folder / "data" / "raw")
    (folder / "data" / "preprocessed" / f"{NAMES[1]}.pkl").unlink()
    with pytest.raises(InputError, match="1 cases are missing: case_00001"):
        opened(folder)


Change = Callable[[Path], None]


def rewritten(name: str, change: Callable[[Any], Any]) -> Change:
    """The case's file with other voxels."""

    def apply(case: Path) -> None:
        file = nibabel.load(case / name)
        nibabel.Nifti1Image(change(np.asarray(file.dataobj)), file.affine).to_filename(case / name)

    return apply


def patched(name: str, at: int, value: Any) -> Change:
    """The case's file with other bytes in its header."""

    def apply(case: Path) -> None:
        data = bytearray(gzip.decompress((case / name).read_bytes()))
        data[at : at + value.nbytes] = value.tobytes()
        (case / name).write_bytes(gzip.compress(bytes(data), 1))

    return apply


def cut(name: str) -> Change:
    return lambda case: (case / name).write_bytes((case / name).read_bytes()[:-40]) and None


def with_nan(voxels: Any) -> Any:
    voxels = voxels.astype(np.float32)
    voxels[1, 2, 3:5] = np.nan
    return voxels


IMAGING, SEGMENTATION = "imaging.nii.gz", "segmentation.nii.gz"
BROKEN: dict[str, tuple[Change, str]] = {
    "cut off": (cut(IMAGING), r"imaging\.nii\.gz: not a whole NIfTI file"),
    "labels cut off": (cut(SEGMENTATION), r"segmentation\.nii\.gz: not a whole NIfTI file"),
    "nan": (rewritten(IMAGING, with_nan), r"imaging\.nii\.gz: 2 of .* voxels are not finite numbers"),
    "another shape": (
        rewritten(SEGMENTATION, lambda v: v[:-1]),
        r"segmentation\.nii\.gz: has the shape 7 x .* has 8 x",
    ),
    "flat": (
        rewritten(IMAGING, lambda v: v[0]),
        r"imaging\.nii\.gz: has the shape 32 x 36, expected a volume of three",
    ),
    "no spacing": (patched(IMAGING, 80, np.float32(0)), r"imaging\.nii\.gz: voxels are 0 x .* mm apart"),
    "negative spacing": (patched(IMAGING, 84, np.float32(-1)), r"imaging\.nii\.gz: voxels are 4 x -1 x .* mm apart"),
    "spacing of nm": (
        patched(IMAGING, 80, np.float32(1e-6)),
        r"imaging\.nii\.gz: .* mm, expected 1 to 3,000 mm",
    ),
    "spacing of km": (patched(IMAGING, 88, np.float32(1e6)), r"imaging\.nii\.gz: .* mm, expected 1 to 3,000 mm"),
    "complex": (rewritten(IMAGING, lambda v: v.astype(np.complex64)), r"imaging\.nii\.gz: its voxels are complex64"),
    "colours": (
        rewritten(IMAGING, lambda v: np.zeros(v.shape, [(name, np.uint8) for name in "RGB"])),
        r"imaging\.nii\.gz: its voxels are .*'R'.*, expected plain numbers",
    ),
    "other labels": (rewritten(SEGMENTATION, lambda v: v + 2), r"segmentation\.nii\.gz: has other labels than 0, 1"),
    "half labels": (rewritten(SEGMENTATION, lambda v: v / 2), r"segmentation\.nii\.gz: has other labels than 0, 1"),
    "no labels": (lambda case: (case / SEGMENTATION).unlink(), r"case_00001/segmentation\.nii\.gz: no such file"),
    "no gzip": (lambda case: (case / IMAGING).write_bytes(b"x" * 500) and None, "not a whole NIfTI file"),
    "empty": (lambda case: (case / IMAGING).write_bytes(b"") and None, r"imaging\.nii\.gz: not a whole NIfTI file"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_bad_files_are_named(fault: str, folder: Path) -> None:
    change, message = BROKEN[fault]
    change(folder / "data" / "raw" / NAMES[1])
    with pytest.raises(InputError, match=message):
        opened(folder)


def test_a_scaled_image_is_read_in_its_units(folder: Path) -> None:
    case = folder / "data" / "raw" / NAMES[0]
    before = read_scan(case).image
    patched(IMAGING, 112, np.array([0.5, -3], np.float32))(case)  # scl_slope, scl_inter
    assert read_scan(case).image == pytest.approx(before * 0.5 - 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([np.zeros((1, 32, 32, 32), np.float32)], "holds no float32 image and uint8 label"),
        ([np.zeros((1, 16, 24, 32)), np.zeros((1, 16, 24, 32), np.uint8)], "holds no float32 image and uint8 label"),
        ([np.zeros((1, 2, 2, 2), np.float32), np.zeros((1, 2, 2, 2), np.uint8)], "holds no float32 image"),
        ({"a": 1}, "holds no float32 image and uint8 label"),
        (None, "its checksum is another"),
    ],
)
def test_bad_preprocessed_volumes_are_named(value: Any, message: str, folder: Path) -> None:
    data = opened(folder)
    file = folder / "data" / "preprocessed" / f"{NAMES[0]}.pkl"
    image = data.gather(np.array([0])).volumes[0] + 1
    pickles.write(file, value or [image[None], data.label(0)[None]])
    with pytest.raises(InputError, match=message) as caught:
        data.load([0])
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("index", [[1], {"cases": {name: {} for name in NAMES}}, {"cases": 3}])
def test_a_bad_index_is_named(index: Any, folder: Path) -> None:
    opened(folder)
    shutil.rmtree(folder / "data" / "raw")
    pickles.write(folder / "data" / "preprocessed" / "preprocessed_files.pkl", index)
    with pytest.raises(InputError, match=r"preprocessed_files\.pkl: "):
        opened(folder)


def test_checksums_are_of_the_arrays(folder: Path) -> None:
    opened(folder)
    made = folder / "data" / "preprocessed"
    known = json.loads((made / prepared.CHECKSUMS).read_text())["cases"][NAMES[0]]
    volume = Volume(*pickle.loads((made / f"{NAMES[0]}.pkl").read_bytes()))
    assert {"image", "label", "made_from"} == {*known}
    assert prepared.checksums(volume) == {"image": known["image"], "label": known["label"]}
