"""Installs a wheel into a fresh environment of the Python that runs this, and lets it do what needs no PyTorch.

    python3.12 tests/packaging/try_wheel.py dist/hwfault-*.whl [constraints ...]

What is given behind the wheel goes to pip as well, such as `numpy==1.26.4`.
"""

import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

BUNDLE = Path(__file__).parents[1] / "compatibility" / "0.4.0" / "bundle.zip"


def main(wheel: str, *more: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        binaries = Path(folder) / "bin"

        def run(*command: str) -> str:
            # in the fresh folder, where no source of hwfault can be imported in place of the wheel
            done = subprocess.run(
                [binaries / command[0], *command[1:]], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
            )
            return done.stdout.strip()

        run("pip", "install", "--quiet", str(Path(wheel).resolve()), *more)
        version = run("hwfault", "--version")
        where = run("python", "-c", "import hwfault; print(hwfault.__file__, hwfault.onnxruntime_library())")
        assert all(path.startswith(folder) for path in where.split()), where
        run("hwfault", "profiles", "list")
        told = run("hwfault", "replay", str(BUNDLE)).splitlines()[-1]
        assert told.startswith("Replay: pass."), told
    print(f"{Path(wheel).name} on Python {platform.python_version()}: {version}. {told}")


if __name__ == "__main__":
    main(*sys.argv[1:])
