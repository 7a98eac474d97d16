"""Writers of small data sets in the true file formats, with random content that a seed fixes.

Each returns what it wrote as NumPy arrays: (train_x, train_y, test_x, test_y).
"""

import tarfile
from pathlib import Path

import numpy as np

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
