"""This machine: its GPU, and where the libraries are that libquire_cuda.so opens (cuBLASLt, NCCL,
CUPTI). They are not carried: they are as large as a machine's limit, and any machine with CUDA or
PyTorch has them."""

import ctypes
import glob
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WANTED = ("libcublasLt.so.13", "libnccl.so.2", "libcupti.so.13")


def bundle():
    return os.environ.get("QUIRE_GPU_BUNDLE") or os.path.join(ROOT, "build-gpu-bundle")


def library_folders():
    """The first folder of each wanted library, and the bundle's own."""
    roots = ["/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib", "/usr/local/cuda/extras/CUPTI/lib64"]
    for place in sys.path:
        roots += sorted(glob.glob(os.path.join(place, "nvidia", "*", "lib")))
    roots += ["/usr/lib/x86_64-linux-gnu", os.path.expanduser("~/.cache/quire/cuda-13.0/nvidia/cu13/lib"),
              os.path.expanduser("~/.cache/quire/cuda-13.0/nvidia/nccl/lib")]
    found = [os.path.join(bundle(), "lib")]
    for name in WANTED:
        for folder in roots:
            if os.path.exists(os.path.join(folder, name)) and folder not in found:
                found.append(folder)
                break
    return found


def library(name):
    for folder in library_folders():
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return path
    return None


def nccl_version():
    """(2, 30, 3), or None where there is no library."""
    path = library("libnccl.so.2")
    if path is None:
        return None
    version = ctypes.c_int()
    ctypes.CDLL(path).ncclGetVersion(ctypes.byref(version))
    return version.value // 10000, version.value % 10000 // 100, version.value % 100


def environment(**more):
    """Of our programs. Not for Python: its libraries are its own."""
    env = dict(os.environ, LD_LIBRARY_PATH=":".join(library_folders()), QUIRE_TEST_DATA=bundle(),
               QUIRE_REQUIRE_TEST_DATA="1")
    env.update(more)
    return env


def rank_environment(rank, version):
    """What NCCL needs for several ranks on one GPU (a process each): one switch since 2.30, before
    that a host name of its own for every rank, which leaves only sockets between them."""
    if version is not None and version >= (2, 30, 3):
        return {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0", "NCCL_MAX_CTAS": "1"}
    return {"NCCL_HOSTID": f"quire-rank-{rank}", "NCCL_NET": "Socket", "NCCL_IB_DISABLE": "1",
            "NCCL_SOCKET_IFNAME": "lo", "NCCL_MNNVL_ENABLE": "0", "NCCL_NVLS_ENABLE": "0",
            "NCCL_MAX_CTAS": "1", "NCCL_ALGO": "Ring", "NCCL_PROTO": "Simple"}


def query_gpu():
    """{name, driver, memory_gb} of the first GPU, or None."""
    try:
        output = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"],
            stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    lines = output.strip().splitlines()
    if not lines:
        return None
    name, driver, memory = [word.strip() for word in lines[0].split(",")]
    return {"name": name, "driver": driver, "memory_gb": round(float(memory) / 1024, 1), "gpus": len(lines)}


def describe(gpu):
    """What stands at the head of the results."""
    facts = {"GPU memory GB": gpu["memory_gb"], "GPUs": gpu["gpus"], "driver": gpu["driver"],
             "CPUs": os.cpu_count(), "Python": sys.version.split()[0]}
    version = nccl_version()
    if version:
        facts["NCCL"] = ".".join(map(str, version))
    nvcc = "/usr/local/cuda/bin/nvcc"
    if os.path.exists(nvcc):
        text = subprocess.run([nvcc, "--version"], stdout=subprocess.PIPE, text=True, timeout=60, check=False).stdout
        match = re.search(r"release ([\d.]+)", text)
        facts["CUDA toolkit"] = match.group(1) if match else "unknown"
    return facts


# Peaks from the data sheets, for rooflines: bytes/s of memory, bf16 flops dense.
PEAKS = {"H100": (3.35e12, 989e12), "H200": (4.8e12, 989e12), "A100": (2.039e12, 312e12)}


def peaks(name):
    for key, value in PEAKS.items():
        if key in name:
            return value
    return None
