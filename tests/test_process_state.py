"""What an objective can change for its whole process is seen, each change by its name."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.base.process import changes, process_state
from kdbench.variants.select import load_plugin

CHANGES = {
    "torch.set_default_dtype(torch.float64)": "torch's default dtype",
    "torch.set_default_device('meta')": "torch's default device",
    "torch.set_num_threads(2)": "torch's number of threads",
    "torch.set_grad_enabled(False)": "torch's grad mode",
    "kept = torch.inference_mode(); kept.__enter__()": "torch's grad mode",
    "torch.use_deterministic_algorithms(True)": "torch's deterministic flags",
    "torch.backends.cudnn.benchmark = True": "torch's deterministic flags",
    "torch.autograd.set_detect_anomaly(True)": "torch's anomaly mode",
    "torch.nn.modules.module.register_module_forward_hook(print)": "torch's global hooks",
    "torch.nn.modules.module.register_module_full_backward_hook(print)": "torch's global hooks",
    "optimizer.register_optimizer_step_pre_hook(print)": "torch's global hooks",
    "torch.set_float32_matmul_precision('medium')": "torch's matrix products",
    "torch.backends.mkldnn.enabled = False": "torch's matrix products",
    "torch.autocast('cpu', torch.bfloat16).__enter__()": "torch's autocast",
    "torch.autograd.graph.save_on_cpu().__enter__()": "torch's modes",
    "torch.device('cpu').__enter__()": "torch's modes",
    "torch.set_flush_denormal(True)": "torch's denormal numbers",
    "torch.nn.functional.silu = torch.tanh": "torch.nn.functional.silu",
    "torch.Tensor.exp = torch.Tensor.log": "torch.Tensor.exp",
    "kdbench.base.seeds.derive = hash": "kdbench.base.seeds.derive",
    "numpy.seterr(all='raise')": "numpy's error state",
    "warnings.simplefilter('error')": "the warnings filters",
    "os.environ['NEW_ONE'] = '1'": "the environment variable NEW_ONE",
    "del os.environ['PATH']": "the environment variable PATH",
    "os.chdir('/')": "the current folder",
    "os.umask(0o777)": "the umask",
    "sys.setrecursionlimit(77)": "the recursion limit",
    "sys.path.insert(0, 'x')": "the import path",
    "sys.settrace(lambda *given: None)": "tracing",
    "sys.stdout = sys.stderr": "the output",
    "gc.disable()": "the garbage collector",
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)": "the signal handlers",
    "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()": "running threads",
    "torch.manual_seed(3); numpy.random.seed(3)": None,
    "torch.zeros(3).requires_grad_().sum().backward()": None,
}
"""Code, and what is said of it; None where nothing outlives it."""
SCRIPT = """
import gc, json, os, signal, sys, threading, time, warnings
import numpy, torch
import torch.optim
import kdbench.base.seeds
from kdbench.base.process import changes, process_state

found, optimizer = {}, sys.modules["torch.optim.optimizer"]
for code in json.load(sys.stdin):
    reader, writer = os.pipe()
    if os.fork() == 0:
        before = process_state()
        exec(code)
        os.write(writer, json.dumps(changes(before, process_state())).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        found[code] = json.loads(file.read() or '["it died"]')
    os.wait()
print(json.dumps(found))
"""


def test_every_change_is_seen_and_named() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(list(CHANGES)),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(result.stdout)
    seen = {code: name if name in found[code] else found[code] for code, name in CHANGES.items()}
    assert seen == {code: [] if name is None else name for code, name in CHANGES.items()}


def test_nothing_is_said_where_nothing_changed() -> None:
    assert changes(process_state(), process_state()) == []


PLUGIN = """
import torch
from kdbench.api import divergence, kl

torch.set_num_threads(torch.get_num_threads() + 1)

@divergence("setting", source="a test")
def setting(teacher_logp, student_logp):
    return kl(teacher_logp, student_logp)
"""


@pytest.mark.usefixtures("own_registry")
def test_a_plugin_that_changes_the_process_when_it_is_imported_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    threads = torch.get_num_threads()
    try:
        with pytest.raises(UserError, match=r"plugin.py changes torch's number of threads"):
            load_plugin(tmp_path / "plugin.py")
    finally:
        torch.set_num_threads(threads)
