"""Makes `.venv` with kdbench and what it needs; does nothing when that has been done.

Standard library only: it runs before anything is installed. Plain pip, because it is what resolves
vLLM, transformers and a CPU build of torch together; PyTorch's CPU index is tried where pip would
otherwise bring gigabytes of CUDA to a machine without a GPU.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 13)
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
TORCH = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BROKEN_BESIDE_CPU_TORCH = ("torchvision", "torchaudio", "torchcodec")


def main() -> int:
    """Installs the extras that were asked for, once for each content of pyproject.toml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", action="append", default=[], help="for example: test")
    extras = parser.parse_args().extra
    if sys.version_info < OLDEST:
        print(
            f"kdbench needs Python 3.11, 3.12 or 3.13, this is {sys.version.split()[0]}: "
            "name another, for example make run PYTHON=python3.11"
        )
        return 2
    if sys.version_info[:2] > NEWEST:
        print(f"Python {sys.version.split()[0]} is untested; kdbench is tested on 3.11 to 3.13")
    import tomllib  # Python 3.11

    content = (ROOT / "pyproject.toml").read_bytes()
    requirements = tomllib.loads(content.decode())["project"]["optional-dependencies"]
    wanted = hashlib.sha256(content).hexdigest()
    for step in ["kdbench", *extras]:
        stamp = VENV / f".{step}-is-installed"
        if stamp.exists() and stamp.read_text() == wanted and PYTHON.exists():
            continue
        # An extra's packages by name: asking for kdbench[extra] would bring torchvision back.
        ok = install_kdbench() if step == "kdbench" else pip("install", *requirements[step]) == 0
        if not ok:
            return 1
        stamp.write_text(wanted)
    return 0


def install_kdbench() -> bool:
    """Creates the environment and installs kdbench with the backend this machine can use."""
    if not PYTHON.exists():
        print("creating .venv", flush=True)
        venv.create(VENV, with_pip=True)
    gpu = has_nvidia_gpu()
    if not gpu:
        install_cpu_torch()
    if pip("install", "--editable", f"{ROOT}[{'gpu' if gpu else 'cpu'}]") != 0:
        return False
    mend_torchvision()
    return True


def has_nvidia_gpu() -> bool:
    """Whether the driver lists a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return "GPU" in listed.stdout


def install_cpu_torch() -> None:
    """Installs the CPU build first, so that nothing later asks for the CUDA one."""
    if works("import torch"):
        return
    quick = ("--retries", "0", "--timeout", "15", "--extra-index-url", CPU_INDEX)
    if pip("install", f"torch=={TORCH}+cpu", *quick) != 0:
        pip("install", f"torch=={TORCH}")


def mend_torchvision() -> None:
    """Removes add-ons whose wheels do not match torch: with them, no model can be imported.

    vLLM asks for them, kdbench uses none of them; a broken one shows as
    `operator torchvision::nms does not exist` when transformers imports a model.
    """
    broken = [
        name
        for name in BROKEN_BESIDE_CPU_TORCH
        if works(f"import importlib.metadata as m; m.version('{name}')")
        and not works(f"import {name}")
    ]
    if broken:
        print(f"removing {', '.join(broken)}: built for another torch", flush=True)
        pip("uninstall", "-y", *broken)


def works(code: str) -> bool:
    """Whether a line of Python runs in the environment."""
    result = subprocess.run([PYTHON, "-c", code], capture_output=True, check=False)
    return result.returncode == 0


def pip(*arguments: str) -> int:
    """Runs pip in the environment; returns its exit code."""
    return subprocess.run([PYTHON, "-m", "pip", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
