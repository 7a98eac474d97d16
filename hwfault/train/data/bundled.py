"""The data set that needs no files."""

import numpy as np
import torch

from hwfault.train.data.dataset import Dataset

_HELD_OUT = 360


def digits() -> Dataset:
    """scikit-learn's bundled 8 x 8 digits, (n, 1, 8, 8) in sixteenths from 0 to 1; always the same 360 held out."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images.astype(np.float32) / 16).unsqueeze(1)
    y = torch.from_numpy(bunch.target.astype(np.int64))
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(y)))
    test, train = order[:_HELD_OUT], order[_HELD_OUT:]
    return Dataset(x[train], y[train], x[test], y[test], classes=10)
