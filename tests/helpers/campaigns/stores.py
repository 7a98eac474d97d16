"""Stores of campaigns written by hand, without any network: what their trials came to is known."""

import json

import numpy as np

from hwfault.campaigns.database import Database, Row
from hwfault.campaigns.study.records import Stop, Study

MASKS = ("correct", "top1", "due")
SUBJECT = {"network": "a" * 64, "class": "small", "samples": 10, "samples digest": "b" * 64}
VERSIONS = {"hwfault": "0.5.0", "torch": "2.0"}


def row(key, wrong, samples=10, **more):
    """A trial in which the images of these numbers are wrong."""
    answers = np.zeros((3, samples), bool)
    answers[1, list(wrong)] = True
    answers[0] = ~answers[1]
    return Row(key, answers, **more)


class Store:
    """A database with the tasks that are added to it, each with a study's question of its name."""

    def __init__(self, path, study):
        self.database = Database(path)
        self.study = Study.parse(study, "the study")
        self.tasks = []

    def add(
        self,
        name,
        rows,
        *,
        faults,
        labels=None,
        draw="seeds",
        total=None,
        looks=(),
        samples=10,
        label=None,
        masks=MASKS,
    ):
        """A task with its trials; `looks` are (trials, stopped, why)."""
        labels = labels or {}
        identity = {"subject": SUBJECT, "faults": faults, "labels": labels, "arithmetic": "float", "of": name}
        golden = np.zeros((3, samples), bool)
        golden[0] = True
        task = self.database.task(identity, samples=samples, masks=masks, golden=golden if masks is MASKS else None)
        self.database.put(task, rows)
        for trials, stopped, why in looks:
            self.database.look(task, trials, stopped, why)
        stop = Stop(max_trials=1000).model_dump(mode="json")
        told = {"question": name, "name": label or name, "labels": labels, "digest": task.digest, "draw": draw}
        self.tasks.append(told | {"total": total, "stop": stop})
        return task

    def close(self, **said):
        """Says what the tasks are, and closes the file."""
        self.database.say("study", json.dumps(self.study.to_data()))
        self.database.say("tasks", json.dumps(self.tasks))
        for key, value in said.items():
            self.database.say(key, json.dumps(value))
        self.database.close()
        return self.database.path
