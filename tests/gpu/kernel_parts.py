"""Parts that look at kernels: the tests against the real runtime, compute-sanitizer, and the benches."""

import os
import re
import shutil
import sys

import goldens
import machine
import ranks
from server import program
from serving import json_lines
from steps import StepFailed, StepSkipped

HERE = os.path.dirname(os.path.abspath(__file__))


def tests_row(name, output):
    """What a GoogleTest program says of itself; a run of no test is a failure."""
    ran = re.search(r"\[==========\] (\d+) tests? from .* ran", output)
    passed = re.search(r"\[  PASSED  \] (\d+) test", output)
    if not ran or not passed or int(passed.group(1)) == 0:
        raise StepFailed(f"{name} ran no test:\n{output[-2000:]}")
    return {"bench": "tests", "program": name, "ran": int(ran.group(1)), "passed": int(passed.group(1))}


def test_program(name, seconds, *arguments):
    def work(part):
        return [tests_row(name, part.run([program(name), *arguments], seconds, machine.environment()))]
    return work


def list_devices(part):
    output = part.run([program("quire-worker"), "--list-devices"], 60, machine.environment())
    if not re.search(r"^GPU 0 ", output, re.M):
        raise StepFailed(f"no GPU is listed:\n{output}")
    part.say(output.strip())
    return [{"bench": "devices", "line": line} for line in output.strip().splitlines()]


def build_and_ops(part, gpu):
    part.step("devices", list_devices)
    for suite in ("CudaAttention", "CudaRow", "CudaRope", "CudaSample", "CudaLinear", "CudaDevice"):
        part.step(f"ops: {suite}", test_program("gpu_ops_test", 150, f"--gtest_filter=*{suite}*"))
    part.step("ops: all others", test_program(
        "gpu_ops_test", 100, "--gtest_filter=-" + ":".join(f"*{s}*" for s in (
            "CudaAttention", "CudaRow", "CudaRope", "CudaSample", "CudaLinear", "CudaDevice"))))
    part.step("goldens, one rank in the test's process", test_program("gpu_golden_test", 120))
    for model in goldens.MODELS:
        part.step(f"goldens, {model} served", ranks.golden_step(model, 1))
    # bf16 arithmetic and KV: near, not equal.
    part.step("goldens, stories260K served in bf16", ranks.golden_step("stories260K", 1, dtype="bfloat16",
                                                                       tolerance=0.15, close=0.3))


# compute-sanitizer makes a kernel tens of times slower: small cases only.
SMALL = {
    "attention": "CudaAttention.MatchesTheReference:CudaAttention.AFewTokensOfARowAreCutToo",
    "row": "*CudaRow*:*Rope*",
    "sample": "*CudaSample*",
    "linear": "*MultipliesAnyNumberOfTokens*:*AnEmptyRangeSumsToZero*",
    "device": "CudaDevice.*",
}


def sanitizer_path():
    for path in (shutil.which("compute-sanitizer"), "/usr/local/cuda/bin/compute-sanitizer",
                 "/opt/nvidia/compute-sanitizer/compute-sanitizer"):
        if path and os.path.exists(path):
            return path
    raise StepSkipped("no compute-sanitizer on this machine")


def sanitized(tool, name, arguments, is_test):
    def work(part):
        command = [sanitizer_path(), "--tool", tool, "--error-exitcode", "99", "--print-limit", "20",
                   program(name), *arguments]
        output = part.run(command, 150, machine.environment())
        found = re.search(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", output)
        if not found or int(found.group(1) or found.group(2)) != 0:
            raise StepFailed(f"{tool} has no clean summary:\n{output[-3000:]}")
        row = {"bench": "sanitizer", "tool": tool, "program": name, "errors": 0}
        return [dict(row, tests=tests_row(name, output)["passed"])] if is_test else [row]
    return work


def sanitizer(part, gpu):
    for tool in ("memcheck", "racecheck"):
        for name, tests in SMALL.items():
            part.step(f"{tool}: {name}", sanitized(tool, "gpu_ops_test", [f"--gtest_filter={tests}"], True), needs=30)
    part.step("memcheck: a whole model", sanitized("memcheck", "gpu_golden_test", ["--gtest_filter=*rope3*"], True),
              needs=30)
    for name in ("attention", "linear"):
        part.step(f"memcheck: bench of {name}", sanitized("memcheck", f"bench_cuda_{name}", ["--tiny"], False))


def attention_goals(row):
    share = row.get("hbm_share")
    if "refused" in row:
        return row
    if row["bench"] == "cuda_attention_decode":
        if row["batch"] == 1 and row["context"] == 1024:
            return dict(row, goal="<= 15 us", met=row["us"] <= 15)
        if row["kv_mb"] >= 64 and row["kv"] == "bfloat16" and not row["shared"]:
            at_least = 0.65 if (row["batch"], row["context"]) == (64, 512) else 0.80
            return dict(row, goal=f">= {at_least:.0%} of HBM", met=share >= at_least)
    if row["bench"] == "cuda_attention_prefill" and row["tokens"] >= 2048:
        return dict(row, goal=">= 350 TFLOP/s", met=row["tflop_s"] >= 350)
    if row["bench"] == "cuda_linear_few" and row["weights"] == "bf16" and row["weight_mb"] >= 16:
        return dict(row, goal=">= 90 % of HBM", met=share >= 0.9)
    if row["bench"] == "cuda_linear_many" and "peak_share" in row and row["tokens"] >= 512:
        at_least = 0.70 if row["tokens"] >= 2048 else 0.55
        return dict(row, goal=f">= {at_least:.0%} of peak", met=row["peak_share"] >= at_least)
    return row


def bench(name, *arguments):
    def work(part):
        rows = json_lines(part.run([program(name), *arguments], env=machine.environment()))
        if len(rows) < 2:
            raise StepFailed(f"{name} printed {len(rows)} results")
        return [attention_goals(row) for row in rows]
    return work


def torch_peer(part):
    return json_lines(part.run([sys.executable, os.path.join(HERE, "peers/peer_kernels.py")]))


def attention_and_linear(part, gpu):
    part.step("attention, decode", bench("bench_cuda_attention", "--only", "decode"))
    part.step("attention, prefill", bench("bench_cuda_attention", "--only", "prefill"))
    part.step("linear, few tokens", bench("bench_cuda_linear", "--only", "few"))
    part.step("linear, many tokens", bench("bench_cuda_linear", "--only", "many"))
    part.step("PyTorch", torch_peer)
