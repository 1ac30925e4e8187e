"""What a benchmark ran on."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import CORES

import xmrcae

PACKAGES = ("torch", "numpy", "xarray", "dask")


def describe() -> dict[str, Any]:
    """Processor, cores that may be used, memory, GPU, and versions."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = {"xmrcae": xmrcae.__version__, "Python": platform.python_version()}
    versions |= {name: version(name) for name in PACKAGES}
    return {
        "cpu": _cpu(),
        "cores": CORES,
        "memory_gib": memory,
        "gpu": _gpu(),
        "versions": versions,
    }


def _cpu() -> str:
    """The processor's name; on Linux the system says more than Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu() -> str:
    """The GPU's name, or nothing; another process imports torch, which is large."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
