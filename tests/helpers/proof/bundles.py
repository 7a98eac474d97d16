"""Bundles of the test networks, made once, and ways to change them."""

import json
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save

from hwfault.proof.manifest import MANIFEST
from hwfault.proof.record import write_bundle
from hwfault.proof.storage import Bundle
from tests.helpers.graph.networks import batch, network, plan

SEEDS = (1, 2**63 + 5)
SAMPLES = 6


def written(path, name="formats", *, faults=None, seeds=SEEDS, **options):
    """A bundle of a test network: its path."""
    x = batch(name, SAMPLES, 3)
    labels = torch.arange(SAMPLES) % 5
    write_bundle(path, network(name), x, labels=labels, plan=faults or plan(name), seeds=seeds, **options)
    return path


def rewritten(folder: Path, name: str, content: bytes) -> None:
    """Puts other content into a bundle's file, with the hash that fits it: the work of somebody who knows how."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def with_tensors(folder: Path, name: str, change) -> None:
    """Lets `change` alter the tensors of a file."""
    tensors = load_file(folder / name)
    change(tensors)
    rewritten(folder, name, save({key: np.array(values, order="C") for key, values in tensors.items()}))


def with_manifest(folder: Path, change) -> None:
    """Lets `change` alter the manifest."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def zipped(folder: Path, path: Path) -> Path:
    """A folder's files as a .zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


def copied(folder: Path, to: Path) -> Path:
    """A copy of a bundle to be changed."""
    shutil.copytree(folder, to)
    return to


def opened(path) -> Bundle:
    return Bundle.open(path)
