"""The oldest Triton that runs the kernels: on a GPU, and under its interpreter, which must get on with this NumPy."""

import os

OLDEST = "3.6" if os.environ.get("TRITON_INTERPRET", "0") == "0" else "3.7"
