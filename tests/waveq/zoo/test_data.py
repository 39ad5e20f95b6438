"""Datasets: small files in the true formats, damaged ones, cuts, and what a network gets to see."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from waveq.zoo import data_status, dataset_names, load_data
from waveq.zoo.datasets.folders import FolderSplit
from waveq.zoo.datasets.sources import DEBIAN_FASHION, DIGITS
from waveq.zoo.datasets.splits import MemorySplit, fit_images, stratified_cut
from waveq.zoo.datasets.treebanks import TREEBANKS


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashion(folder: Path, *, suffix: str = ".gz") -> np.ndarray:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28))
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
        if part == "train":
            first = images
    return first


def python2_batch(data: np.ndarray, labels: list[int]) -> bytes:
    """A pickle as Python 2 wrote CIFAR10's: protocol 2, byte strings, dtype called with zeros for booleans."""
    raw = data.tobytes()
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    return (
        b"\x80\x02}("
        b"U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01"
        + (b"J" + struct.pack("<i", data.shape[0]) + b"J" + struct.pack("<i", data.shape[1]) + b"\x86")
        + b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tbU\x06labels]("
        + numbers
        + b"eu."
    )


def write_cifar(folder: Path) -> np.ndarray:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    batches = {f"data_batch_{i}": rng.integers(0, 256, (20, 3072), dtype=np.uint8) for i in range(1, 6)}
    batches["test_batch"] = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
    for name, data in batches.items():
        (folder / name).write_bytes(python2_batch(data, [i % 10 for i in range(len(data))]))
    return np.concatenate([batches[f"data_batch_{i}"] for i in range(1, 6)])


def write_svhn(folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(2)
    arrays = {}
    for part, count in (("train", 40), ("test", 20)):
        arrays[part] = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = (np.arange(count) % 10 + 1).reshape(-1, 1).astype(np.uint8)  # 1..10, 10 being the digit 0
        savemat(folder / f"{part}_32x32.mat", {"X": arrays[part], "y": labels})
    return arrays


def write_images(root: Path, size: tuple[int, int] = (40, 30)) -> None:
    for part, count in (("train", 6), ("val", 3)):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                image = Image.new("RGB", size, (label * 200, i * 20, 50))
                image.save(root / part / name / f"{i}.png")


@pytest.mark.parametrize(("place", "suffix"), [("fashion-mnist", ".gz"), ("FashionMNIST/raw", ""), (".", ".gz")])
def test_fashion_mnist_files(tmp_path: Path, place: str, suffix: str) -> None:
    images = write_fashion(tmp_path / "d" / place, suffix=suffix)
    data = load_data("fashion-mnist", data_dir=tmp_path / "d")
    assert isinstance(data.train, MemorySplit)
    assert isinstance(data.validation, MemorySplit)
    assert (len(data.train), len(data.validation), len(data.test())) == (50, 10, 20)
    held = data.validation.pixels[data.validation.labels == 3][0, 0].numpy()
    assert any(np.array_equal(held, image) for image in images[3::10])


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason=f"{DEBIAN_FASHION} is not installed")
def test_fashion_mnist_of_debian(tmp_path: Path) -> None:
    data = load_data("fashion-mnist", data_dir=tmp_path)
    assert data.folder == DEBIAN_FASHION
    assert isinstance(data.train, MemorySplit)
    x, _ = data.train.tensors()
    assert x.shape == (54_000, 1, 28, 28)
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1) < 0.01
    assert torch.bincount(data.validation.labels).tolist() == [600] * 10


def test_cifar10_files(tmp_path: Path) -> None:
    images = write_cifar(tmp_path / "cifar-10-batches-py")
    data = load_data("cifar10", data_dir=tmp_path, validation=0.2)
    assert isinstance(data.train, MemorySplit)
    assert (len(data.train), len(data.validation), len(data.test())) == (80, 20, 10)
    known = {image.tobytes() for image in images}
    assert all(image.numpy().tobytes() in known for image in data.train.pixels)
    x, _ = data.train.batch(torch.tensor([0]))
    torch.testing.assert_close(x[0], data.train.pixels[0].float() / 127.5 - 1)


def test_svhn_files(tmp_path: Path) -> None:
    arrays = write_svhn(tmp_path / "svhn")
    data = load_data("svhn", data_dir=tmp_path)
    test = data.test()
    assert isinstance(test, MemorySplit)
    assert test.labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    np.testing.assert_array_equal(test.pixels[4].numpy(), arrays["test"][:, :, :, 4].transpose(2, 0, 1))


def test_image_folders(tmp_path: Path) -> None:
    write_images(tmp_path)
    data = load_data("imagenet", data_dir=tmp_path, size=16, validation=0.34)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.validation), len(data.test())) == (8, 4, 6)
    x, y = next(iter(data.loader("test")))
    assert x.shape == (6, 3, 16, 16)
    assert y.tolist() == [0, 0, 0, 1, 1, 1]
    red = x[:, 0] * 0.229 + 0.485
    torch.testing.assert_close(red[0], torch.zeros(16, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(red[3], torch.full((16, 16), 200 / 255), atol=1e-6, rtol=0)


def test_augmented_image_files_depend_on_the_seed_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    files = tuple(sorted(tmp_path.glob("*.png")))
    split = FolderSplit(files=files, labels=torch.arange(4), size=(16, 16), mean=(0.0,) * 3, std=(1.0,) * 3, workers=3)
    data = load_data("imagenet", data_dir=_tree(tmp_path / "tree"))
    indices = torch.tensor([2, 0, 3, 1])
    x, y = split.batch(indices, augmentation=data.augmentation, seed=5)
    split.batch(indices, augmentation=data.augmentation, seed=2**61 - 2)  # the largest that training gives
    again, _ = split.batch(indices, augmentation=data.augmentation, seed=5)
    other, _ = split.batch(indices, augmentation=data.augmentation, seed=6)
    part, part_y = split.batch(indices, augmentation=data.augmentation, seed=5, rows=slice(1, None, 2))
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert torch.equal(part, x[1::2])
    assert torch.equal(part_y, y[1::2])


def _tree(root: Path) -> Path:
    write_images(root)
    return root


def test_centre_of_a_file_is_the_usual_view(tmp_path: Path) -> None:
    """Shorter side to 256, centre crop of 224, as torchvision's reference evaluation does it."""
    ramp = np.linspace(0, 255, 320)[None, :, None].repeat(256, 0).repeat(3, 2).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    split = FolderSplit(
        files=(tmp_path / "ramp.png",), labels=torch.zeros(1), size=(224, 224), mean=(0.0,) * 3, std=(1.0,) * 3
    )
    x, _ = split.batch(torch.tensor([0]))
    torch.testing.assert_close(x[0], torch.from_numpy(ramp[16:240, 48:272].copy()).permute(2, 0, 1) / 255.0)


@pytest.mark.slow
def test_digits_parts_do_not_overlap_and_are_fixed() -> None:
    one, two = load_data("digits"), load_data("digits")
    parts = [one.train, one.validation, one.test()]
    assert all(isinstance(part, MemorySplit) for part in parts)
    assert sum(map(len, parts)) == 1797
    assert torch.equal(one.validation.labels, two.validation.labels)
    other = load_data("digits", split_seed=1)
    assert isinstance(other.validation, MemorySplit)
    assert isinstance(one.validation, MemorySplit)
    assert not torch.equal(other.validation.pixels, one.validation.pixels)
    assert other.test().labels.equal(one.test().labels)  # the seed of the validation part leaves the test part alone


@pytest.mark.parametrize(
    ("dataset", "file", "damage", "complaint"),
    [
        ("fashion-mnist", "train-images-idx3-ubyte.gz", "truncate", "truncated or not a gzip file"),
        ("fashion-mnist", "train-labels-idx1-ubyte.gz", "noise", "truncated or not a gzip file"),
        ("cifar10", "data_batch_3", "truncate", "truncated or not a batch"),
        ("cifar10", "data_batch_3", "noise", "truncated or not a batch"),
        ("svhn", "train_32x32.mat", "truncate", r"truncated or not a \.mat file"),
        ("svhn", "train_32x32.mat", "noise", r"truncated or not a \.mat file"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, dataset: str, file: str, damage: str, complaint: str) -> None:
    {"fashion-mnist": write_fashion, "cifar10": write_cifar, "svhn": write_svhn}[dataset](tmp_path / "d")
    path = tmp_path / "d" / file
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "truncate" else bytes(range(7, 207)))
    with pytest.raises(ValueError, match=rf"{file}: {complaint}"):
        load_data(dataset, data_dir=tmp_path / "d")


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "fashion-mnist"
    write_fashion(folder)
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.arange(59))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz: 59 labels for 60 images"):
        load_data("fashion-mnist", data_dir=tmp_path)
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.full(60, 11))
    with pytest.raises(ValueError, match=r"label 11 where 0\.\.9"):
        load_data("fashion-mnist", data_dir=tmp_path)
    write_idx(folder / "train-images-idx3-ubyte.gz", np.zeros((60, 27, 28)))
    with pytest.raises(ValueError, match=r"\(60, 27, 28\) is not \(N, 28, 28\)"):
        load_data("fashion-mnist", data_dir=tmp_path)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    write_cifar(tmp_path / "d")
    (tmp_path / "d" / "data_batch_1").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"data_batch_1: .*posix|os\.system"):
        load_data("cifar10", data_dir=tmp_path / "d")


def test_missing_test_file_is_named_when_it_is_needed(tmp_path: Path) -> None:
    write_fashion(tmp_path / "fashion-mnist")
    (tmp_path / "fashion-mnist" / "t10k-images-idx3-ubyte.gz").unlink()
    data = load_data("fashion-mnist", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte: not there, but the test part"):
        data.test()


def test_damaged_image_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    broken = tmp_path / "val" / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"1\.png: truncated or not an image"):
        list(load_data("imagenet", data_dir=tmp_path, size=16).loader("test"))


def test_image_folders_that_disagree(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "val" / "cow").mkdir()
    with pytest.raises(ValueError, match=r"not those of the training folder \(differs: cow\)"):
        load_data("imagenet", data_dir=tmp_path).test()
    (tmp_path / "train" / "cow").mkdir()
    with pytest.raises(ValueError, match="cow: no images inside"):
        load_data("imagenet", data_dir=tmp_path)


def test_absent_dataset_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cifar10 is not there; .*cifar-10-batches-py.*To get it: --download"):
        load_data("cifar10", data_dir=tmp_path)
    with pytest.raises(ValueError, match="imagenet cannot be downloaded"):
        load_data("imagenet", data_dir=tmp_path, download=True)


def test_download_goes_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def cifar(root: str, *, download: bool) -> None:
        asked.append(download)
        write_cifar(Path(root) / "cifar-10-batches-py")

    def svhn(root: str, *, split: str, download: bool) -> None:
        asked.append(split)
        if split == "test":
            write_svhn(Path(root))

    monkeypatch.setattr(datasets, "CIFAR10", cifar)
    monkeypatch.setattr(datasets, "SVHN", svhn)
    assert len(load_data("cifar10", data_dir=tmp_path, download=True).test()) == 10
    assert len(load_data("svhn", data_dir=tmp_path, download=True).test()) == 20
    load_data("svhn", data_dir=tmp_path, download=True)
    assert asked == [True, "train", "test"]  # what is there is not downloaded again

    def offline(root: str, *, download: bool) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "CIFAR10", offline)
    with pytest.raises(ValueError, match=r"cifar10 did not arrive .*no route to host.* by hand: --download, or unpack"):
        load_data("cifar10", data_dir=tmp_path / "other", download=True)


def test_unknown_names_and_shares(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'fashion-mnist'"):
        load_data("fashon-mnist")
    with pytest.raises(ValueError, match="validation: a share between 0 and 1"):
        load_data("digits", validation=1.5)
    with pytest.raises(ValueError, match="did you mean 'validation'"):
        load_data("digits").loader("validaton")


@pytest.mark.slow
def test_status_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(tmp_path / "svhn")
    monkeypatch.setenv("WAVEQ_DATA", str(tmp_path))
    status = {row.name: row for row in data_status()}
    assert tuple(status) == (*dataset_names(), *TREEBANKS)
    assert status["svhn"].found == tmp_path / "svhn"
    assert status["digits"].available
    assert not status["cifar10"].available
    assert tmp_path / "cifar-10-batches-py" in status["cifar10"].looked
    (tmp_path / "svhn" / "test_32x32.mat").unlink()
    assert not {row.name: row for row in data_status()}["svhn"].available


def test_cut_is_stratified_and_complete() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 2 + [3])
    stay, held = stratified_cut(labels, 0.1, seed=4)
    assert sorted([*stay.tolist(), *held.tolist()]) == list(range(83))
    assert torch.bincount(labels[held], minlength=4).tolist() == [5, 3, 1, 0]
    assert torch.equal(stratified_cut(labels, 0.1, seed=4)[1], held)
    assert not torch.equal(stratified_cut(labels, 0.1, seed=5)[1], held)


def test_images_made_to_fit() -> None:
    pixels = torch.arange(2 * 28 * 28).reshape(2, 1, 28, 28).remainder(256).to(torch.uint8)
    padded = fit_images(pixels, 3, (32, 32))
    assert torch.equal(padded[:, 2, 2:30, 2:30], pixels[:, 0])
    assert int(padded.sum()) == 3 * int(pixels.sum())
    flat = fit_images(torch.full((1, 1, 8, 8), 9, dtype=torch.uint8), 1, (28, 20))
    assert flat.shape == (1, 1, 28, 20)
    assert flat.unique().tolist() == [9]
    grey = fit_images(torch.tensor([255, 0, 0], dtype=torch.uint8).reshape(1, 3, 1, 1), 1, (1, 1))
    assert grey.item() == round(0.299 * 255)
    with pytest.raises(ValueError, match="images with 3 channels cannot be given 4"):
        fit_images(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 4, (4, 4))


def test_loader_gives_everything_once() -> None:
    data = load_data("digits", channels=3, size=12)
    assert isinstance(data.validation, MemorySplit)
    loader = data.loader("validation", batch_size=50)
    x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
    whole, labels = data.validation.tensors()
    assert len(loader) == 3
    assert torch.equal(x, whole)
    assert torch.equal(y, labels)
    torch.testing.assert_close(x, (data.validation.pixels.float() / 16 - 0.5) / 0.5)


def test_the_digits_in_the_package_are_scikit_learns() -> None:
    """benchmarks/digits.py writes them; their digest is known, and where scikit-learn is installed each pixel is."""
    with np.load(DIGITS) as packed:
        images, labels = packed["images"], packed["labels"]
    assert (images.shape, images.dtype, labels.dtype) == ((1797, 8, 8), np.uint8, np.uint8)
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16] == "87ff0c9e40dc7e2c"
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    assert np.array_equal(images, theirs.images)
    assert np.array_equal(labels, theirs.target)
