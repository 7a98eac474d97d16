"""Writers of small data sets in the true file formats, with random content that a seed fixes.

Each returns what it wrote as NumPy arrays: (train_x, train_y, test_x, test_y).
"""

import gzip
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR10_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


def write_cifar10(folder, n_train=50, n_test=20, seed=0):
    """data_batch_1.bin to data_batch_5.bin (n_train records in all) and test_batch.bin; easy to learn."""
    train, test = images(n_train, 10, seed), images(n_test, 10, seed + 1)
    parts = [*zip(*(np.array_split(array, 5) for array in train), strict=True), test]
    for name, (x, y) in zip(CIFAR10_FILES, parts, strict=True):
        write(folder, name, cifar_records(x, y))
    return *train, *test


def write_cifar100(folder, n_train=200, n_test=20, seed=0):
    """train.bin and test.bin; the coarse label is the fine one's fifth."""
    train, test = images(n_train, 100, seed), images(n_test, 100, seed + 1)
    for name, (x, y) in (("train.bin", train), ("test.bin", test)):
        write(folder, name, cifar_records(x, y // 5, y))
    return *train, *test


def write_archive(path, files, below="cifar-10-batches-bin"):
    """A .tar.gz with the files of a folder below another name, as published."""
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(Path(files).iterdir()):
            archive.add(file, f"{below}/{file.name}")
    return path


def images(count, classes, seed, shape=(3, 32, 32)):
    """Noise that is brighter in a place that its class decides: easy to learn, no two alike."""
    generator = np.random.default_rng(seed)
    y = generator.permutation(np.arange(count) % classes)
    x = generator.integers(0, 128, (count, *shape), np.uint8)
    pixels = x.reshape(count, -1)
    width = pixels.shape[1] // classes
    for label in range(classes):
        pixels[y == label, label * width : (label + 1) * width] += 100
    return x, y


def cifar_records(x, *labels):
    columns = [np.asarray(y, np.uint8)[:, None] for y in labels]
    return np.concatenate([*columns, x.reshape(len(x), -1)], axis=1).tobytes()


def write(folder, name, content):
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


MNIST_FILES = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))


def write_mnist(folder, n_train=30, n_test=20, seed=0, zipped=False):
    """The four idx files of MNIST or Fashion-MNIST, gzipped or not."""
    train, test = (images(n, 10, seed + i, (1, 28, 28)) for i, n in enumerate((n_train, n_test)))
    for name, array in zip(MNIST_FILES, (*train, *test), strict=True):
        content = idx(array.squeeze(1) if array.ndim == 4 else array)
        write(folder, f"{name}.gz" if zipped else name, gzip.compress(content) if zipped else content)
    return *train, *test


def idx(array):
    """An idx file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def write_image_folder(folder, classes=("cat", "dog"), n_train=4, n_val=2, seed=0, size=(40, 30), suffix=".png"):
    """train/<class>/<n><suffix> and val/<class>/<n><suffix>, of `size` (width, height)."""
    parts = []
    for part, count in (("train", n_train), ("val", n_val)):
        x, y = images(count * len(classes), len(classes), seed + len(parts), (size[1], size[0], 3))
        for number, (image, label) in enumerate(zip(x, y, strict=True)):
            path = Path(folder) / part / classes[label] / f"{number:03}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        order = np.argsort(y, kind="stable")  # as the split has them: by class, then by name
        parts += [x[order], y[order]]
    return tuple(parts)
