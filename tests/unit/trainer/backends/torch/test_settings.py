"""Settings of torch that a trial changes are what they were for the next one."""

from __future__ import annotations

import os
import subprocess
import sys

# In a process of its own: a setting that isn't put back would change other tests.
CODE = """
import torch
from torch.backends import cuda, cudnn, mkldnn
from trainmaster_trainer.backends.torch.settings import settings_kept

def seen():
    tiny = torch.tensor([1e-39]) * 1.0
    return {
        "dtype": torch.get_default_dtype(), "device": torch.empty(1).device.type, "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(), "anomaly": torch.is_anomaly_enabled(),
        "grad": torch.is_grad_enabled(), "denormal": bool(tiny != 0), "cudnn": cudnn.enabled,
        "benchmark": cudnn.benchmark, "cudnn_deterministic": cudnn.deterministic, "conv": cudnn.conv.fp32_precision,
        "rnn": cudnn.rnn.fp32_precision, "mkldnn": mkldnn.enabled, "flash": cuda.flash_sdp_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "fp16": cuda.matmul.allow_fp16_reduced_precision_reduction,
        "math": cuda.math_sdp_enabled(),
    }

torch.set_num_threads(2)
before = seen()
precision = torch.get_float32_matmul_precision()
with settings_kept():
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.autograd.set_detect_anomaly(True)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)
    cudnn.enabled, cudnn.benchmark, cudnn.deterministic, mkldnn.enabled = False, True, True, False
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"
    cuda.enable_flash_sdp(False)
    cuda.enable_math_sdp(False)
    cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.utils.deterministic.fill_uninitialized_memory = False
    cuda.matmul.fp32_precision = "tf32"
    torch.set_default_dtype(torch.float32)  # for the look at a denormal number
    torch.set_default_device("meta")
    changed = {"device": torch.empty(1).device.type}
    torch.set_default_device("cpu")
    changed = {**seen(), **changed}
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    changed["dtype"] = torch.get_default_dtype()
print([name for name in before if changed[name] == before[name]])
print({name: value for name, value in seen().items() if value != before[name]})
print(torch.get_float32_matmul_precision() == precision)
"""


def test_settings_are_kept() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines() == ["[]", "{}", "True"], "all were changed, and none still is"
