import os
import shutil
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from hwfault.errors import FileError, HwfaultError
from hwfault.image_files import decode
from hwfault.train.batches import Batches
from hwfault.train.data import ImageFolder, images, load
from tests.helpers.train import files, small


@pytest.fixture
def folder(tmp_path):
    files.write_image_folder(tmp_path)
    return tmp_path


def whole(split):
    return split.inputs(torch.arange(len(split)))


def to_tensor(image):
    """A transform of the user's: a PIL image to float32, as torchvision's are."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 100


def to_bytes(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def jitter(image):
    return to_tensor(image) + torch.rand(3, 1, 1)


def test_classes_splits_and_shapes(folder):
    data = load("image_folder", folder=folder, size=16)
    assert isinstance(data, ImageFolder)
    assert (data.classes, data.class_names) == (2, ("cat", "dog"))
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert data.validation is None
    assert data.example.shape == (1, 3, 16, 16)
    assert data.train.file(0).parent == folder / "train" / "cat"
    assert load("image_folder", folder=folder).example.shape == (1, 3, 224, 224)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif"])
def test_images_of_the_right_size_come_through_untouched(tmp_path, suffix):
    """36 pixels are the side that 32 are cut from: the middle of an image of that size is all that changes."""
    written = files.write_image_folder(tmp_path, size=(36, 36), suffix=suffix)
    data = load("image_folder", folder=tmp_path, size=32, normalise=False)
    want = written[2][:, 2:34, 2:34].transpose(0, 3, 1, 2) / np.float32(255)
    assert np.array_equal(whole(data.test).numpy(), want)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert np.array_equal(whole(load("image_folder", folder=tmp_path, size=32).test).numpy(), (want - mean) / std)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_other_colours_become_rgb(tmp_path, mode):
    image = Image.new("RGB", (8, 8), (204, 204, 204)).convert(mode)
    image.save(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    decoded = images.pixels(decode(next(tmp_path.iterdir())))
    assert (decoded.shape, decoded.dtype) == ((3, 8, 8), torch.uint8)
    assert (decoded.int() - 204).abs().max() <= 2


@pytest.mark.parametrize(("width", "height"), [(100, 40), (40, 100), (1, 300), (5, 5)])
def test_the_shorter_side_decides(width, height):
    assert images.Prepare(14)(Image.new("RGB", (width, height))).shape == (3, 14, 14)
    assert images.ResizedCrop(14)(Image.new("RGB", (width, height))).shape == (3, 14, 14)


def test_random_parts_lie_inside_and_vary():
    torch.manual_seed(0)
    parts = [images._part(60, 40) for _ in range(500)]
    for left, top, width, height in parts:
        assert 0 <= left <= left + width <= 60
        assert 0 <= top <= top + height <= 40
        assert 0.7 < width / height < 1.4
    areas = [width * height / 2400 for *_, width, height in parts]
    assert min(areas) < 0.12
    assert max(areas) > 0.75
    assert {images._part(1, 1000)[2:] for _ in range(5)} == {(1, 1)}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_lost_files_and_damaged_ones_are_named_when_read(tmp_path, suffix):
    files.write_image_folder(tmp_path, suffix=suffix)
    data = load("image_folder", folder=tmp_path, size=8)
    path = data.test.file(2)
    content = path.read_bytes()
    for damage in (content[: len(content) // 2], b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        path.write_bytes(damage)
        data.test.inputs(torch.tensor([0, 1, 3]))
        with pytest.raises(FileError) as error:
            whole(data.test)
        assert str(error.value).startswith(f"{path}: is not an image that can be decoded (")
    path.unlink()
    with pytest.raises(FileError, match="No such file"):
        whole(data.test)


def png(width, height):
    """A PNG whose header alone says how large it is."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.mark.parametrize("side", [8193, 9999, 100_000])
@pytest.mark.filterwarnings("default")
def test_decompression_bombs(tmp_path, side):
    path = files.write(tmp_path, "bomb.png", png(side, side))
    with pytest.raises(FileError, match=r"bomb\.png: has .*pixels, expected 67108864 at most"):
        decode(path)


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_images_too_narrow_to_be_resized(tmp_path, size):
    """Little memory as they are: 3000 pixels, but 256 times 256 as many with a shorter side of 256."""
    files.write_image_folder(tmp_path, size=size)
    with pytest.raises(FileError, match=r"\.png: an image of .* would be resized to .*, expected 67108864 pixels at m"):
        whole(load("image_folder", folder=tmp_path).train)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda at: shutil.rmtree(at / "val"),
            "a folder of images is not here: it has no folder 'val'; expected train/<cl",
        ),
        (lambda at: shutil.rmtree(at / "val/dog"), "class 'dog' is in train but not in val"),
        (lambda at: (at / "val/eel").mkdir(), "class 'eel' is in val but not in train"),
        (lambda at: (at / "train/cat/notes.txt").touch(), "train/cat/notes.txt: is not an image by its name"),
        (lambda at: (at / "train/cat/more.png").mkdir(), "train/cat/more.png: is not an image by its name"),
        (lambda at: (at / "train/cat.png").touch(), "train/cat.png: is not a folder, expected one folder for each"),
        (lambda at: [p.unlink() for p in (at / "val/cat").iterdir()], "val/cat: holds no images"),
        (lambda at: [shutil.rmtree(p) for p in (at / "train").iterdir()], "train: is empty"),
    ],
)
def test_folders_that_are_no_data_set(folder, change, text):
    change(folder)
    with pytest.raises(FileError) as error:
        load("image_folder", folder=folder)
    assert str(error.value).startswith(str(folder))
    assert text in str(error.value)


def test_hidden_files_are_passed_over_and_names_may_be_anything(folder):
    for name in ("train/.DS_Store", "train/cat/.hidden"):
        (folder / name).touch()
    os.rename(folder / "train/cat", os.fsencode(folder / "train") + b"/c\xff t")
    os.rename(folder / "val/cat", os.fsencode(folder / "val") + b"/c\xff t")
    data = load("image_folder", folder=folder, size=8)
    assert len(data.train) == 8
    assert data.example.shape == (1, 3, 8, 8)


def test_validation_is_taken_from_training(folder):
    data = load("image_folder", folder=folder, size=8)
    part = data.split_off(0.25, seed=1)
    assert (len(part.train), len(part.validation), len(part.test)) == (6, 2, 4)
    both = {str(split.file(i)) for split in (part.train, part.validation) for i in range(len(split))}
    assert both == {str(data.train.file(i)) for i in range(8)}
    for split in (part.train, part.validation):
        assert all(data.class_names[y] in str(split.file(i)) for i, y in enumerate(split.labels.tolist()))
    with pytest.raises(HwfaultError, match="already"):
        part.split_off(1, seed=1)


def test_transforms_of_the_users_take_a_pil_image(folder):
    data = load("image_folder", folder=folder, transform="tests.train.test_data_folder:to_tensor")
    want = np.array(Image.open(data.test.file(0))).transpose(2, 0, 1)[None] / np.float32(100)
    assert np.array_equal(data.example.numpy(), want)
    uint8 = load("image_folder", folder=folder, transform=to_bytes, normalise=False)
    assert torch.equal((uint8.example * 255).round(), (data.example * 100).round())
    assert torch.equal(data.prepared(normalise=False).example, data.example)
    for broken in ({"transform": small.broken}, {"transform": "tests.helpers.train.small:broken"}):
        with pytest.raises(HwfaultError, match="the transform raised Broken: on purpose"):
            whole(load("image_folder", folder=folder, **broken).test)
    with pytest.raises(HwfaultError, match="transform returned a Image, expected a uint8 or float32 tensor of one"):
        _ = load("image_folder", folder=folder, transform=lambda image: image).example


def test_images_of_several_sizes_need_a_transform_that_makes_one(folder):
    Image.new("RGB", (9, 9)).save(folder / "val/cat/009.png")
    data = load("image_folder", folder=folder, transform=to_tensor)
    with pytest.raises(HwfaultError, match="expected one shape and type for all"):
        whole(data.test)


@pytest.mark.parametrize("name", ["torchvision.transforms:ToTensor", "tests.helpers.train.needs_torchvision:train"])
def test_torchvision_is_asked_for_by_name(folder, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # as if it was not installed, also where it is
    monkeypatch.delitem(sys.modules, "torchvision.transforms", raising=False)
    with pytest.raises(HwfaultError, match=r"torchvision.*; pip install 'hwfault\[vision\]'"):
        load("image_folder", folder=folder, transform=name)


def test_transforms_must_be_callables_by_name(folder):
    with pytest.raises(HwfaultError, match="transform 'resize' is unknown, expected module:function"):
        load("image_folder", folder=folder, transform="resize")
    with pytest.raises(HwfaultError, match="is a class, expected a function or an instance"):
        load("image_folder", folder=folder, transform="hwfault.train.data.images:Prepare")


def epochs(data, *, augment, workers=0, epoch=0, batch_size=3, **options):
    batches = Batches(data.train, batch_size, shuffle=True, augment=augment, workers=workers, **options)
    batches.set_epoch(epoch)
    return torch.cat([x for x, _ in batches]), batches


@pytest.mark.parametrize("augment", ["resized_crop", jitter])
def test_workers_and_batch_sizes_change_nothing(folder, augment):
    data = load("image_folder", folder=folder, size=8)
    state = torch.get_rng_state()
    one, _ = epochs(data, augment=augment)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(epochs(data, augment=augment, batch_size=5)[0], one)
    assert not torch.equal(epochs(data, augment=augment, epoch=1)[0].sum(), one.sum())
    by_workers, batches = epochs(data, augment=augment, workers=2)
    assert torch.equal(by_workers, one)
    next(iter(batches))  # an epoch that is not read to its end
    assert torch.equal(torch.cat([x for x, _ in batches]), one)


def test_errors_of_workers_read_like_any_other(folder):
    data = load("image_folder", folder=folder, size=8)
    data.train.file(5).write_bytes(b"no image")
    batches = Batches(data.train, 4, workers=1)
    with pytest.raises(FileError) as error:
        list(batches)
    assert str(error.value).startswith(f"{data.train.file(5)}: is not an image that can be decoded (")
    assert "Traceback" not in str(error.value)


def test_augmentations_suit_their_data(folder):
    data = load("image_folder", folder=folder, size=8)
    with pytest.raises(HwfaultError, match="'crop_flip' is none for image folders, expected 'resized_crop', module:f"):
        Batches(data.train, 2, augment="crop_flip")
    with pytest.raises(HwfaultError, match="size is 0, expected 1 to 4096"):
        load("image_folder", folder=folder, size=0)


def test_moving_a_split_moves_what_it_gives(folder):
    split = load("image_folder", folder=folder, size=8).test.to("meta")
    assert split.labels.device.type == "meta"
    assert split.inputs(torch.tensor([0])).device.type == "meta"
