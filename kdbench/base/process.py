"""What Python code can change for its whole process, and so for whatever runs there after it."""

import gc
import locale
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Mapping
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD)
HARNESS_THREADS = ("QueueFeederThread", "Inductor", "Subproc", "ThreadPoolExecutor")
"""Of `multiprocessing`, which starts it when a task first reports, and of torch.compile."""
OF_COMPILERS = ("TORCHINDUCTOR_", "TRITON_")
"""Of environment variables that torch.compile sets."""
PATCHED = ("torch", "torch.Tensor", "torch.nn.Module", "torch.nn.functional", "numpy", "math")
"""Modules and classes of which others use the functions that they find there."""

SETTINGS = ("torch's", "numpy's", "the current folder", "the locale", "the umask")
"""How the names of those settings begin that no import has to change."""


def process_state() -> dict[str, Any]:
    """What the whole process shares, by the words of a message, to be compared with `==`.

    torch and numpy are looked at where they are imported; random generators are left out.
    """
    state: dict[str, Any] = {
        "the current folder": _folder(),
        "the warnings filters": [entry[:1] + entry[2:3] for entry in warnings.filters],
        "what shows warnings": id(warnings.showwarning),
        "the recursion limit": sys.getrecursionlimit(),
        "the garbage collector": (gc.isenabled(), gc.get_threshold()),
        "tracing": (id(sys.gettrace()), id(sys.getprofile())),
        "the output": (id(sys.stdout), id(sys.stderr)),
        "the locale": locale.setlocale(locale.LC_ALL),
        "the signal handlers": [id(signal.getsignal(number)) for number in SIGNALS],
        "the import path": list(sys.path),
        "the umask": _umask(),
        "running threads": {
            thread.ident
            for thread in threading.enumerate()
            if not thread.name.startswith(HARNESS_THREADS)
        },
    }
    state |= {
        f"the environment variable {name}": value
        for name, value in os.environ.items()
        if not name.startswith(OF_COMPILERS)
    }
    if (numpy := sys.modules.get("numpy")) is not None:
        state["numpy's error state"] = (numpy.geterr(), id(numpy.geterrcall()))
    if (torch := sys.modules.get("torch")) is not None and "torch.nn.functional" in sys.modules:
        state |= _of_torch(torch)
    return state | _functions()


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two states; what is not in the first is new where it is a setting."""
    imported = {name for name in after.keys() - before.keys() if "environment" not in name}
    names = dict.fromkeys([*before, *after])
    return [
        name
        for name in names
        if name not in imported and before.get(name, ...) != after.get(name, ...)
    ]


def seed_generators(seed: int) -> None:
    """Seeds every generator of the process, so that nothing depends on what ran here before."""
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def _of_torch(torch: Any) -> dict[str, Any]:
    backends, modules = torch.backends, sys.modules
    hooks = [
        len(hooks)
        for owner in ("torch.nn.modules.module", "torch.optim.optimizer")
        for name, hooks in sorted(vars(modules[owner]).items())
        if name.startswith("_global") and hasattr(hooks, "__len__")
    ]
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": str(torch.get_default_device()),
        "torch's number of threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch's grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "torch's deterministic flags": (
            *(torch.are_deterministic_algorithms_enabled(), backends.cudnn.deterministic),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            *(backends.cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory),
        ),
        "torch's anomaly mode": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "torch's global hooks": hooks,
        "torch's matrix products": (
            *(torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32),
            *(backends.cuda.matmul.allow_tf32, backends.mkldnn.enabled, backends.cudnn.enabled),
            backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
            backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
            *(backends.cuda.flash_sdp_enabled(), backends.cuda.mem_efficient_sdp_enabled()),
            *(backends.cuda.math_sdp_enabled(), backends.cuda.cudnn_sdp_enabled()),
        ),
        "torch's autocast": [
            (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
            for device in ("cpu", "cuda")
        ],
        "torch's modes": (
            torch._C._len_torch_function_stack(),
            torch._C._len_torch_dispatch_stack(),
            torch._C._autograd._saved_tensors_hooks_is_enabled(),
            torch._C._autograd._top_saved_tensors_default_hooks(False) is None,
        ),
        "torch's denormal numbers": float("1e-310") * 1.0 > 0,
    }


def _functions() -> dict[str, Any]:
    """The functions that others find in modules and classes, by name."""
    found: dict[str, Any] = {}
    for name in [*PATCHED, *(name for name in sys.modules if name.startswith("kdbench."))]:
        owner: Any = sys.modules.get(name)
        if owner is None:
            module, _, kind = name.rpartition(".")
            owner = getattr(sys.modules.get(module), kind, None)
        for key, value in _members(owner).items():
            if callable(value):
                found[f"{name}.{key}"] = id(value)
    return found


def _members(owner: Any) -> dict[str, Any]:
    """What stands in a module, or in a class and its bases."""
    if not isinstance(owner, type):
        return {} if owner is None else dict(vars(owner))
    return {key: value for base in reversed(owner.__mro__) for key, value in vars(base).items()}


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "a folder that is gone"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
