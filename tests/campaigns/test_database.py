"""The store of campaigns: what is put there is there, whole, and told from what is none."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwfault.campaigns import database as module
from hwfault.campaigns.database import Database, Row, digest_of, pack, unpack
from hwfault.campaigns.merging import merge, same_answers
from hwfault.errors import FileError

IDENTITY = {"network": "abc", "faults": [1e-3, {"b": 2, "a": 1}]}
MASKS = ("correct", "top1", "due")


def answers(seed, masks=3, samples=11):
    return np.random.default_rng(seed).random((masks, samples)) < 0.5


def row(key, **rest):
    return Row(key, answers(key), **rest)


@pytest.fixture
def store(tmp_path):
    with Database(tmp_path / "campaign.sqlite") as found:
        yield found


def task_of(store, identity=IDENTITY, **rest):
    return store.task(identity, samples=11, masks=MASKS, **rest)


@given(arrays(np.bool_, st.tuples(st.integers(0, 4), st.integers(1, 40))))
def test_masks_packed_and_unpacked(masks):
    packed = pack(masks)
    assert len(packed) == masks.shape[0] * -(-masks.shape[1] // 8)
    assert np.array_equal(unpack(packed, *masks.shape), masks)
    with pytest.raises(ValueError, match="expected"):
        unpack(packed + b"\0", *masks.shape)


def test_what_was_put_is_there(store, tmp_path):
    task = task_of(store, golden=answers(99))
    rows = [row(3, faults=5), row(0), row(2**64 - 1, detected=True), Row(7, None, failed="no memory")]
    store.put(task, rows)
    with Database(tmp_path / "campaign.sqlite", readonly=True) as again:
        (found,) = again.tasks()
        assert found == task
        kept = {one.key: one for one in again.rows(found)}
        assert np.array_equal(again.golden(found), answers(99))
        assert again.keys(found) == {0, 3, 7, 2**64 - 1}
    assert [kept[0].faults, kept[3].faults, kept[7].failed] == [None, 5, "no memory"]
    assert kept[2**64 - 1].detected
    for one in rows[:3]:
        assert np.array_equal(kept[one.key].answers, one.answers)


def test_a_trial_is_kept_once(store):
    task = task_of(store)
    store.put(task, [row(1)])
    store.put(task, [Row(1, answers(5)), row(2)])
    kept = {one.key: one for one in store.rows(task)}
    assert np.array_equal(kept[1].answers, answers(1))
    assert len(kept) == 2


def test_metrics(store):
    task = store.task(IDENTITY, samples=4, masks=("due",), metrics=("m:psnr",))
    numbers = np.array([[1.5, -2, np.inf, 0]], np.float32)
    store.put(task, [Row(0, np.zeros((1, 4), bool), numbers)])
    (found,) = store.rows(task)
    assert np.array_equal(found.numbers, numbers)


def test_identities():
    assert digest_of(IDENTITY) == digest_of({"faults": [0.001, {"a": 1, "b": 2}], "network": "abc"})
    assert digest_of(IDENTITY) != digest_of(IDENTITY | {"network": "abd"})
    known = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # sha256sum of {}
    assert digest_of({}) == known


def test_the_same_task_is_one(store):
    assert task_of(store) == task_of(store, {"faults": [1e-3, {"a": 1, "b": 2}], "network": "abc"})
    other = task_of(store, IDENTITY | {"network": "abd"})
    assert [task.id for task in store.tasks()] == [1, 2]
    assert store.find(other.digest) == other
    assert store.find("00") is None


def test_looks_and_texts(store):
    task = task_of(store)
    store.look(task, 40, False, "goes on")
    store.look(task, 20, False, "too early")
    store.look(task, 40, True, "enough")
    assert store.looks(task) == [(20, False, "too early"), (40, True, "enough")]
    store.say("study", "one")
    store.say("study", "two")
    assert store.said("study") == "two"
    assert store.said("nothing") is None


def test_merging(tmp_path):
    with Database(tmp_path / "a.sqlite") as one, Database(tmp_path / "b.sqlite") as other:
        one.put(task_of(one), [row(0), row(1)])
        other.put(task_of(other), [row(1), row(2), row(3)])
        other.put(task_of(other, {"another": 1}), [row(4)])
        assert merge(one, other) == 3
        assert merge(one, other) == 0
        assert one.keys(task_of(one)) == {0, 1, 2, 3}
        assert one.keys(task_of(one, {"another": 1})) == {4}
        other.put(task_of(other), [Row(9, answers(1))])
        one.put(task_of(one), [Row(9, answers(2))])
        with pytest.raises(FileError, match=r"trial 9 of the task .* has other answers"):
            merge(one, other)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (row(1), True),
        (row(2), False),
        (row(1, detected=True), False),
        (row(1, numbers=np.zeros((1, 11), np.float32)), False),
        (Row(1, None, failed="why"), False),
    ],
)
def test_same_answers(other, same):
    assert same_answers(row(1), other) == same
    assert same_answers(other, row(1)) == same
    assert same_answers(other, other)


# files that are none


def test_other_files(tmp_path):
    (tmp_path / "text").write_text("hello, this is no database at all" * 100)
    with pytest.raises(FileError, match="is no file of hwfault campaign, or is damaged"):
        Database(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as connection:
        connection.execute("CREATE TABLE somebody(else_s)")
    connection.close()
    for readonly in (True, False):
        with pytest.raises(FileError, match="is no file of hwfault campaign; choose another"):
            Database(tmp_path / "other", readonly=readonly)
    with pytest.raises(FileError, match=r"is not there"):
        Database(tmp_path / "nothing", readonly=True)
    assert not (tmp_path / "nothing").exists()


def damaged(path, statement, *values):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement, values)
    connection.close()


def read_all(path):
    with Database(path, readonly=True) as store:
        for task in store.tasks():
            list(store.rows(task))


@pytest.mark.parametrize(
    ("statement", "value", "told"),
    [
        ("UPDATE trial SET answers = ?", b"\0", "expected 6 bytes"),
        ("UPDATE trial SET answers = ?", "text", "expected 6 bytes"),
        ("UPDATE trial SET numbers = ?", b"\0", "are damaged, expected 0 bytes"),
        ("UPDATE task SET identity = ?", "{}", "not what its digest says"),
        ("UPDATE task SET identity = ?", "[" * 100_000, "cannot be read"),
        ("UPDATE task SET samples = ?", "many", "not what its digest says"),
        ("UPDATE task SET masks = ?", "[1]", "not what its digest says"),
        ("UPDATE about SET value = ?", "hwfault-campaign/2", "another version"),
    ],
)
def test_damaged_files(tmp_path, statement, value, told):
    path = tmp_path / "campaign.sqlite"
    with Database(path) as store:
        store.put(task_of(store), [row(1)])
    damaged(path, statement, value)
    with pytest.raises(FileError, match=told):
        read_all(path)


def test_a_full_disk(tmp_path):
    path = tmp_path / "campaign.sqlite"
    with Database(path) as store:
        task = task_of(store)
        store.put(task, [row(key) for key in range(10)])
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(FileError, match="make room, and the same command goes on"):
            store.put(task, [row(key) for key in range(10, 5000)])
        assert store.keys(task) == set(range(10))
    with Database(path) as store:
        store.put(task, [row(key) for key in range(10, 20)])
        assert len(store.keys(task)) == 20


MOUNTS = "/dev/sda / ext4 rw 0 0\nserver:/x /mnt/shared\\040disk nfs4 rw 0 0\nme@h: /mnt/there fuse.sshfs rw 0 0\n"


@pytest.mark.parametrize(
    ("folder", "kind"), [("/mnt/shared disk/a", "nfs4"), ("/mnt/there", "fuse.sshfs"), ("/mnt/shared", None)]
)
def test_file_systems_of_networks(monkeypatch, folder, kind):
    monkeypatch.setattr(module.Path, "read_text", lambda _self: MOUNTS)
    if kind is None:
        module.check_local(module.Path(folder))
        return
    with pytest.raises(FileError, match=rf"of a network \({kind}\).*--shard"):
        module.check_local(module.Path(folder))


WRITER = """
import sys
import numpy as np
from hwfault.campaigns.database import Database, Row

with Database(sys.argv[1]) as store:
    task = store.task({"a": 1}, samples=8, masks=("top1",))
    key = 0
    while True:
        store.put(task, [Row(key + i, np.ones((1, 8), bool)) for i in range(5)])
        key += 5
        print(key, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_reported(tmp_path):
    path = tmp_path / "campaign.sqlite"
    for wait in (0.05, 0.2):
        path.unlink(missing_ok=True)
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as writer:
            first = writer.stdout.readline()
            time.sleep(wait)
            writer.send_signal(signal.SIGKILL)
            reported = [first, *writer.stdout]
        whole = [line for line in reported if line.endswith("\n")]
        with Database(path) as store:
            (task,) = store.tasks()
            keys = store.keys(task)
        assert keys >= set(range(int(whole[-1])))
        assert len(keys) % 5 == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=8))
def test_keys_are_any_seeds(tmp_path_factory, keys):
    with Database(tmp_path_factory.mktemp("keys") / "campaign.sqlite") as store:
        task = task_of(store)
        store.put(task, [row(key) for key in keys])
        assert store.keys(task) == set(keys)
        assert {one.key for one in store.rows(task)} == set(keys)


def test_what_else_was_seen(store):
    task = task_of(store)
    seen = {"correct": 4, "statistics": [{"site": "s", "squared_change": 0.1}]}
    store.put(task, [Row(1, None, seen=seen), row(2, seen={"a": 2**53}), row(3)])
    assert [one.seen for one in store.rows(task)] == [seen, {"a": 2**53}, None]
    store._connection.execute("UPDATE trial SET seen = '[1]'")
    with pytest.raises(FileError, match=r"what a trial of the task .* saw is damaged"):
        list(store.rows(task))


def test_a_store_made_before_trials_told_what_else_was_seen(tmp_path):
    path = tmp_path / "campaign.sqlite"
    with Database(path) as store:
        task = task_of(store)
        store.put(task, [row(1)])
        store._connection.execute("ALTER TABLE trial DROP COLUMN seen")
    with Database(path, readonly=True) as store:
        (kept,) = store.rows(task)
        assert (kept.key, kept.seen) == (1, None)
    with Database(path) as store:
        store.put(task, [row(2, seen={"a": 1})])
        assert [one.seen for one in store.rows(task)] == [None, {"a": 1}]


def test_who_is_refused_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "campaign.sqlite"
    with Database(path) as store:
        store.put(task_of(store), [row(1)])
    before = path.read_bytes()
    with Database(path) as store:
        assert len(store.tasks()) == 1
    assert path.read_bytes() == before


def test_a_store_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Database.in_memory() as store:
        store.put(task_of(store), [row(1, seen={"a": 1})])
        assert [one.key for one in store.rows(store.tasks()[0])] == [1]
    assert list(tmp_path.iterdir()) == []


def test_trials_of_which_a_count_alone_is_known_are_compared_by_it(tmp_path):
    right = int(answers(1)[MASKS.index("correct")].sum())
    with Database(tmp_path / "one.sqlite") as one, Database(tmp_path / "two.sqlite") as two:
        one.put(task_of(one), [row(1), Row(2, None, seen={"correct": 3})])
        two.put(task_of(two), [Row(1, None, seen={"correct": right}), Row(2, None, seen={"correct": 3})])
        assert merge(one, two) == 0
        two.put(task_of(two), [Row(3, None, seen={"correct": 7})])
        one.put(task_of(one), [Row(3, None, seen={"correct": 8})])
        with pytest.raises(FileError, match=r"trial 3 of the task .* has other answers"):
            merge(one, two)
    assert not same_answers(row(1), Row(1, None, seen={"correct": right + 1}), MASKS)
    assert not same_answers(row(1), Row(1, None, seen={"correct": right}, detected=True), MASKS)
