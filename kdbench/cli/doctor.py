"""What this machine has for kdbench, and how to mend what it lacks."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.cli.echo import echo
from kdbench.config.load import installed_suites
from kdbench.pipeline.plan import backend_version, default_backend
from kdbench.variants.objective import OBJECTIVES
from kdbench.variants.variant import load_objectives

TORCH_ADD_ONS = ("torchvision", "torchaudio", "torchcodec")
"""vLLM brings them and kdbench uses none; one built for another torch breaks every model import."""


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at; `remedy` says how to mend it, None where it is in order."""

    what: str
    remedy: str | None = None


def diagnose() -> Iterator[Diagnosis]:
    """Looks at everything a run needs, each import in a process of its own."""
    yield Diagnosis(f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores")
    ok, output = _python(
        "import torch; g = torch.cuda.is_available();"
        "print(torch.__version__, 'on', torch.cuda.get_device_name() if g else 'the CPU')"
    )
    if ok:
        yield Diagnosis(f"torch {output}")
    else:
        yield Diagnosis(f"torch cannot be imported: {output}", "make install, or pip install torch")
    for name in TORCH_ADD_ONS:
        if (version := _version(name)) is None:
            continue
        ok, output = _python(f"import {name}")
        remedy = None if ok else f"pip uninstall -y {name}   (kdbench does not use it)"
        state = "" if ok else f" does not fit this torch: {output}"
        yield Diagnosis(f"{name} {version}{state}", remedy)
    yield _imports("transformers", "from transformers import LlamaForCausalLM")
    backend = default_backend()
    yield Diagnosis(f"answers are generated with {backend} {backend_version(backend)}")
    if backend == "transformers":
        hint = "vLLM is not installed: pip install kdbench[cpu], or kdbench[gpu], is faster"
        yield Diagnosis(hint)
    else:
        check = "import os; os.environ['VLLM_ENABLE_V1_MULTIPROCESSING'] = '0'; import vllm"
        yield _imports("vllm", check)
    yield _registry()
    yield _cache()


def _imports(name: str, code: str) -> Diagnosis:
    ok, output = _python(code)
    if ok:
        return Diagnosis(f"{name} {_version(name) or _version(name + '-cpu')} can be imported")
    remedy = f"pip install --force-reinstall {name}"
    return Diagnosis(f"{name} cannot be imported: {output}", remedy)


def _registry() -> Diagnosis:
    try:
        load_objectives()
        suites = ", ".join(installed_suites())
    except UserError as error:
        return Diagnosis("objectives and suites cannot be loaded", str(error))
    if not OBJECTIVES:
        return Diagnosis(
            "no objective is registered", "pip install kdbench again: its entry points"
        )
    return Diagnosis(f"{len(OBJECTIVES)} objectives; suites: {suites}")


def _cache() -> Diagnosis:
    folder = store.cache_dir()
    try:
        store.write_text(folder / ".probe", "")
        (folder / ".probe").unlink()
    except OSError as error:
        return Diagnosis(f"cache {folder}: {error.strerror}", "set KDBENCH_CACHE to another folder")
    free = shutil.disk_usage(folder).free / 1e9
    remedy = None if free > 1 else "free some space: a run of the embedded suite takes about 1 GB"
    return Diagnosis(f"cache {folder}, {free:.0f} GB free", remedy)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python(code: str) -> tuple[bool, str]:
    """Runs a line of Python; returns whether it went well, and its last line of output."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    text = result.stdout if result.returncode == 0 else result.stderr
    lines = text.strip().splitlines()
    return result.returncode == 0, lines[-1] if lines else ""


@click.command("doctor")
def command() -> None:
    """Say what is installed, which backend and device will be used, and what is wrong."""
    is_well = True
    for finding in diagnose():
        echo(f"{'ok   ' if finding.remedy is None else 'WRONG'} {finding.what}")
        if finding.remedy is not None:
            is_well = False
            echo(f"      {finding.remedy}")
    if not is_well:
        sys.exit(1)
