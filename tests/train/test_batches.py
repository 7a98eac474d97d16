import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import FileError, HwfaultError
from hwfault.train.batches import Batches
from hwfault.train.data import Dataset, MemorySplit, load
from hwfault.train.data.augment import crop_flip
from hwfault.train.data.draws import uniform, words
from hwfault.train.data.split import Finish, split_indices
from tests.helpers.train import files

counts = st.integers(1, 40)
seeds = st.integers(0, (1 << 64) - 1)


def numbered(count, shape=()):
    """A split whose inputs and labels say which sample they are."""
    numbers = torch.arange(count)
    return MemorySplit(numbers.float().view(-1, *[1] * len(shape)).expand(-1, *shape), numbers)


def images(count=12, seed=0):
    x, y = files.images(count, 10, seed)
    return MemorySplit(torch.from_numpy(x), torch.from_numpy(y), Finish((0.5, 0.4, 0.3), (0.2, 0.3, 0.25)))


def labels(batches):
    return [y.tolist() for _, y in batches]


def flat(lists):
    return [number for part in lists for number in part]


@given(counts, st.integers(1, 50), st.booleans(), seeds)
def test_every_sample_comes_once(count, batch_size, shuffle, seed):
    batches = Batches(numbered(count), batch_size, shuffle=shuffle, seed=seed)
    taken = labels(batches)
    assert sorted(flat(taken)) == list(range(count))
    assert len(taken) == len(batches)
    assert {len(part) for part in taken[:-1]} <= {batch_size}
    if not shuffle:
        assert flat(taken) == list(range(count))
    for x, y in batches:
        assert torch.equal(x, y.float())
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)


@given(counts, st.integers(1, 9), st.integers(1, 6), seeds)
def test_ranks_share_an_unshuffled_order_out_without_repetition(count, batch_size, world, seed):
    ranks = [Batches(numbered(count), batch_size, rank=r, world=world, seed=seed) for r in range(world)]
    for rank, batches in enumerate(ranks):
        assert flat(labels(batches)) == list(range(rank, count, world))
        assert len(labels(batches)) == len(batches)


@given(counts, st.integers(1, 9), st.integers(1, 6), seeds, st.integers(0, 3))
def test_ranks_share_a_shuffled_order_out_with_equal_batches(count, batch_size, world, seed, epoch):
    def of(rank, ranks):
        batches = Batches(numbered(count), batch_size, shuffle=True, rank=rank, world=ranks, seed=seed)
        batches.set_epoch(epoch)
        return labels(batches)

    order = flat(of(0, 1))
    ranks = [of(rank, world) for rank in range(world)]
    sizes = [[len(part) for part in rank] for rank in ranks]
    assert all(size == sizes[0] for size in sizes)
    together = [number for row in zip(*map(flat, ranks), strict=True) for number in row]
    padding = -count % world
    assert together == order + (order * world)[:padding]


def test_orders_depend_on_seed_and_epoch_alone():
    def order(seed, epoch, batch_size=7):
        batches = Batches(numbered(50), batch_size, shuffle=True, seed=seed)
        batches.set_epoch(epoch)
        return tuple(flat(labels(batches)))

    state = torch.get_rng_state()
    orders = {order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert order(1, 2) == order(1, 2, batch_size=50)
    assert torch.equal(torch.get_rng_state(), state)
    batches = Batches(numbered(50), 7, shuffle=True)
    assert labels(batches) == labels(batches)


def test_known_answers():
    """Orders and draws that runs depend on, as made by NumPy 2.4."""
    assert flat(labels(Batches(numbered(8), 3, shuffle=True, seed=5))) == [7, 4, 3, 5, 6, 2, 0, 1]
    assert (uniform(2, 5, 1)[:, 0] * 2**24).tolist() == [5518679, 12385247]
    assert words(2, (1 << 64) - 1, 1, 2).tolist() == [9418634830525110490, 12918618776238495160]
    assert split_indices(6, 2, 7)[1].tolist() == [4, 5]
    assert words(1, 1, 2, 3)[0] != words(1, 1 + (2 << 32), 3, 0)[0]


def by_hand(image, draws):
    """What crop_flip does to one image (c, h, w), pixel by pixel."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4)))
    top, left = (int(d * 9) for d in draws[:2])
    cropped = padded[:, top : top + height, left : left + width]
    return cropped[:, :, ::-1] if draws[2] < 0.5 else cropped


@given(st.integers(0, 99), st.sampled_from([(3, 32, 32), (1, 28, 28), (2, 3, 5)]), st.booleans())
def test_crop_flip_is_what_it_says_for_each_sample(seed, shape, floats):
    x, _ = files.images(9, 2, seed, shape)
    x = x / np.float32(7) if floats else x
    draws = uniform(9, seed, 0)
    want = np.stack([by_hand(image, row) for image, row in zip(x, draws, strict=True)])
    assert np.array_equal(crop_flip(torch.from_numpy(x), torch.from_numpy(draws)).numpy(), want)


def test_crop_flip_reaches_all_places_and_no_further():
    draws = torch.zeros(4, 8)
    draws[1] = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    draws[2, :3] = torch.tensor([4 / 9 + 1e-3, 4 / 9 + 1e-3, 0.5])
    draws[3, 2] = 0.7
    x = torch.arange(1, 4 * 36 + 1).view(4, 1, 6, 6)
    made = crop_flip(x, draws)
    assert torch.equal(made[2], x[2])
    assert torch.equal(made[0, 0, 4:, :2], x[0, 0, :2, :2].flip(-1))
    assert torch.equal(made[3, 0, 4:, 4:], x[3, 0, :2, :2])
    assert torch.equal(made[1, 0, :2, :2], x[1, 0, 4:, 4:])
    starts = (torch.from_numpy(uniform(2000, 0, 0))[:, :2] * 9).long()
    assert len(starts.unique(dim=0)) == 81


def epoch_of(split, batch_size, epoch=0, **options):
    """The inputs of an epoch by sample."""
    batches = Batches(split, batch_size, shuffle=True, augment=options.pop("augment", "crop_flip"), **options)
    batches.set_epoch(epoch)
    order, parts = batches.order(), torch.cat([x for x, _ in batches])
    return dict(zip(order.tolist(), parts, strict=True))


@given(st.integers(1, 12), st.integers(1, 4), seeds)
def test_augmentation_belongs_to_the_sample_not_to_batch_or_rank(batch_size, world, seed):
    split = images()
    whole = epoch_of(split, len(split), seed=seed)
    for rank in range(world):
        for number, x in epoch_of(split, batch_size, seed=seed, rank=rank, world=world).items():
            assert torch.equal(x, whole[number])


def test_augmentation_differs_by_epoch_and_is_normalised_after():
    split = images()
    one, other = (epoch_of(split, 5, epoch=epoch) for epoch in (0, 1))
    assert sum(torch.equal(one[n], other[n]) for n in one) < 3
    draws = torch.from_numpy(uniform(len(split), 0, 0))
    want = split.finish(crop_flip(split.stored, draws))
    assert all(torch.equal(one[n], want[n]) for n in one)


def dim(x, draws):
    return (x * draws[:, 7].view(-1, 1, 1, 1)).to(x.dtype)


def test_augmentations_of_the_users():
    split = images()
    made = epoch_of(split, 4, augment=dim)
    assert all(torch.equal(x, epoch_of(split, 12, augment="tests.train.test_batches:dim")[n]) for n, x in made.items())
    want = split.finish(dim(split.stored, torch.from_numpy(uniform(12, 0, 0))))
    assert all(torch.equal(x, want[n]) for n, x in made.items())
    with pytest.raises(
        HwfaultError, match=r"augmentation returned torch\.float64 of shape \(12, 3, 32, 32\), expected a"
    ):
        epoch_of(split, 12, augment=lambda x, draws: x.double())
    with pytest.raises(HwfaultError, match=r"the augmentation raised Broken: on purpose \(.*small\.py, line \d+\)"):
        epoch_of(split, 12, augment="tests.helpers.train.small:broken")
    with pytest.raises(HwfaultError, match="augmentation returned a list, expected a uint8 or float32 tensor of 12"):
        epoch_of(split, 12, augment=lambda x, draws: [x])


def test_augmentations_that_do_not_suit():
    with pytest.raises(
        HwfaultError, match="'resized_crop' is none for data in memory, expected 'crop_flip', module:fu"
    ):
        Batches(images(), 4, augment="resized_crop")
    with pytest.raises(HwfaultError, match=r"'crop_flip' is for images \(n, c, h, w\), given inputs of shape \(9, 4\)"):
        Batches(numbered(9, (4,)), 4, augment="crop_flip")


@given(counts, st.integers(1, 9), st.integers(1, 3), st.data())
def test_a_resume_gives_the_batches_that_were_left(count, batch_size, world, data):
    rank, epoch = data.draw(st.integers(0, world - 1)), data.draw(st.integers(0, 3))

    def fresh():
        return Batches(numbered(count), batch_size, shuffle=True, seed=3, rank=rank, world=world)

    whole = fresh()
    whole.set_epoch(epoch)
    every = labels(whole)
    done = data.draw(st.integers(0, len(every)))
    begun = fresh()
    begun.set_epoch(epoch)
    iterator = iter(begun)
    for _ in range(done):
        next(iterator)
    state = begun.state_dict()
    assert labels(begun) == every  # a new iteration begins at the beginning
    resumed = fresh()
    resumed.load_state_dict(state)
    iterator = iter(resumed)
    resumed.set_epoch(epoch)  # as a trainer does again
    assert [y.tolist() for _, y in iterator] == every[done:]
    assert resumed.state_dict()["done"] == len(every) == len(resumed)
    assert labels(resumed) == every
    resumed.load_state_dict(state)
    resumed.set_epoch(epoch + 1)
    assert resumed.state_dict()["done"] == 0
    whole.set_epoch(epoch + 1)
    assert labels(resumed) == labels(whole)


def test_a_resume_of_augmented_data_is_the_same():
    def batches():
        return Batches(images(), 4, shuffle=True, augment="crop_flip", seed=9)

    every = [x for x, _ in batches()]
    resumed = batches()
    resumed.load_state_dict({**resumed.state_dict(), "done": 1})
    assert all(torch.equal(a, b) for a, (b, _) in zip(every[1:], resumed, strict=True))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"batch_size": 5}, "batch_size 5, now 4; resume with what it was saved with"),
        ({"seed": 1, "world": 2}, "seed 1, now 0; world 2, now 1"),
        ({"samples": None}, "samples None, now 12"),
        ({"done": 4}, "epoch 0 and 4 of 3 batches done"),
        ({"done": "1"}, "'1' of 3 batches done"),
        ({"epoch": None}, "epoch None"),
    ],
)
def test_states_of_other_batches(change, text):
    batches = Batches(images(), 4)
    with pytest.raises(HwfaultError, match=text):
        batches.load_state_dict({**batches.state_dict(), **change})


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"rank": 1}, {"rank": -1}, {"world": 0}, {"workers": -1}])
def test_numbers_out_of_range(options):
    with pytest.raises(HwfaultError, match="expected batches of 1 or more"):
        Batches(images(), **{"batch_size": 4, **options})


def test_what_lightning_asks_of_a_loader():
    batches = Batches(numbered(4), 2, shuffle=True)
    batches.sampler.set_epoch(3)
    assert batches.state_dict()["epoch"] == 3
    assert len(Batches(numbered(2), 2, rank=2, world=3)) == 0
    assert labels(Batches(numbered(2), 2, rank=2, world=3)) == []


def test_data_stay_where_there_is_no_room_for_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images().stored.nbytes - 1, 0))
    split = images()
    assert split.kept_on(torch.device("cuda")) is split
    monkeypatch.setattr(MemorySplit, "to", lambda split, device: device)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images().stored.nbytes, 0))
    assert split.kept_on(torch.device("cuda")) == torch.device("cuda")


def test_inputs_are_made_on_the_device_asked_for():
    split = images().to("meta")
    assert split.inputs(torch.tensor([1, 2])).device.type == "meta"
    assert split.labels.device.type == "meta"
    (x, y), *_ = Batches(images(), 4, augment="crop_flip", device="meta")
    assert (x.device.type, y.device.type, x.shape) == ("meta", "meta", (4, 3, 32, 32))


@given(counts.filter(lambda n: n > 1), st.data(), seeds)
def test_a_part_for_validation(count, data, seed):
    held = data.draw(st.integers(1, count - 1))
    kept, taken = split_indices(count, held, seed)
    assert len(taken) == held
    assert sorted([*kept.tolist(), *taken.tolist()]) == list(range(count))
    assert all(part.tolist() == sorted(part.tolist()) for part in (kept, taken))
    assert all(torch.equal(a, b) for a, b in zip(split_indices(count, held, seed), (kept, taken), strict=True))


@pytest.mark.parametrize("validation", [0, -1, 1e-9, 40, 41, 2.5, float("nan"), float("inf"), 0.999])
def test_parts_that_cannot_be_taken(validation):
    with pytest.raises(HwfaultError, match="expected a share between 0 and 1 or a whole number of samples"):
        split_indices(40, validation, 0)


def test_a_data_set_in_memory_is_split_once(tmp_path):
    files.write_cifar10(tmp_path)
    data = load("cifar10", folder=tmp_path)
    part = data.split_off(0.2, seed=4)
    assert (len(part.train), len(part.validation), len(part.test)) == (40, 10, 20)
    assert (part.classes, part.mean) == (10, data.mean)
    both = torch.cat([part.train_x, part.validation_x]).flatten(1)
    assert torch.equal(both.unique(dim=0), data.train_x.flatten(1).unique(dim=0))
    assert not torch.equal(part.validation_x, data.split_off(10, seed=5).validation_x)
    assert torch.equal(part.validation_x, data.split_off(10, seed=4).validation_x)
    assert data.validation is None
    with pytest.raises(HwfaultError, match="already"):
        part.split_off(0.2, seed=4)


def by_255(x):
    return x.float() / 255


def halves(x):
    return x // 2


def test_how_images_in_memory_are_made_float(tmp_path):
    files.write_cifar10(tmp_path)
    plain = load("cifar10", folder=tmp_path, normalise=False)
    x = torch.arange(20)
    assert torch.equal(plain.test.inputs(x), plain.test_x / 255)
    own = load("cifar10", folder=tmp_path, transform="tests.train.test_batches:by_255")
    assert torch.equal(own.test.inputs(x), plain.test_x / 255)  # float32 is not normalised
    data = load("cifar10", folder=tmp_path, transform=halves)
    assert torch.equal(data.test.inputs(x), data.test.finish(data.test_x // 2))
    with pytest.raises(
        HwfaultError, match=r"transform returned torch\.float32 of shape \(2, 3, 32, 32\), expected a uint8 or"
    ):
        _ = load("cifar10", folder=tmp_path, transform=lambda x: by_255(x)[:2]).test.inputs(x)


def test_data_of_the_users_may_be_bytes_and_have_a_validation_split():
    x, y = torch.full((4, 2, 3, 3), 51, dtype=torch.uint8), torch.arange(4)
    data = Dataset(x, y, x[:1], y[:1], mean=(0.2, 0.1), std=(1.0, 2.0), validation_x=x[:2], validation_y=y[:2])
    assert data.classes == 4
    assert torch.equal(data.example[0, 1], torch.full((3, 3), (0.2 - 0.1) / 2))
    assert not data.example[0, 0].any()
    assert len(data.validation) == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"mean": (0.1,)}, r"expected one finite number for each of 3 channels"),
        ({"mean": (0.1,) * 3, "std": (1.0, 0.0, 1.0)}, "std above 0"),
        ({"mean": (float("nan"),) * 3, "std": (1.0,) * 3}, "finite"),
        ({"test_x": torch.zeros(2, 3, 4, 4)}, r"train_x is torch.uint8 but test_x torch.float32"),
        ({"validation_x": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, "only one of validation_x and validation_y"),
        ({"train_y": torch.tensor([0, 1], dtype=torch.int32)}, "and train_y torch.int32"),
    ],
)
def test_data_sets_that_check_themselves(change, text):
    x, y = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    with pytest.raises(FileError, match=text):
        Dataset(**{"train_x": x, "train_y": y, "test_x": x, "test_y": y, **change})


def test_what_a_data_set_does_not_take_is_said(tmp_path):
    with pytest.raises(HwfaultError, match=r"data 'digits' takes .*given {'folder': '/tmp'}"):
        load("digits", folder="/tmp")
    with pytest.raises(HwfaultError, match="size"):
        load("mnist", folder=tmp_path, size=32)
    with pytest.raises(HwfaultError, match="is a file, given folder too"):
        load("x.npz", folder=tmp_path)
