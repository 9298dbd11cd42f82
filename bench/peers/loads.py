"""The loads, each the same for every engine: options of `quire bench serve`, which sends them to servers,
and prints them (--print-load) for engines without HTTP."""

import dataclasses
import zlib


@dataclasses.dataclass(frozen=True)
class Load:
    name: str
    title: str
    options: tuple = ()
    repeats: int = 3
    quick_repeats: int = 1
    in_quick: bool = False
    # "output": output tokens a second; "prompt": prompt tokens over the time to the first token;
    # "gap": what the intruder does to the others.
    figure: str = "output"
    one_at_a_time: bool = False

    def bench_options(self, repeat):
        """Prompts differ from load to load and repeat to repeat: no engine meets one twice. Lengths do not."""
        seed = zlib.crc32(f"{self.name} {repeat}".encode())
        return ["--dataset-name", "lognormal", "--seed", "1", "--prompt-seed", str(seed), "--ignore-eos", *self.options]


def fixed(requests, input_len, output_len):
    return ("--num-prompts", str(requests), "--random-input-len", str(input_len), "--random-output-len",
            str(output_len))


LOADS = [
    Load("single", "1 stream, 81 in, 128 out", fixed(1, 81, 128), repeats=5, quick_repeats=3, in_quick=True),
    Load("batch24", "24 at once, log-normal", ("--num-prompts", "24"), in_quick=True),
    Load("batch64", "64 at once, log-normal", ("--num-prompts", "64"), repeats=2, in_quick=True),
    Load("offline64", "64 at once, 128 out each", ("--num-prompts", "64", "--random-output-len", "128"), repeats=2),
    Load("equal24", "24 at once, 161 in, 64 out", fixed(24, 161, 64)),
    Load("one_by_one", "4 one at a time, 161 in, 64 out", (*fixed(4, 161, 64), "--max-concurrency", "1"),
         one_at_a_time=True),
    Load("prompt512", "prompt of 512 tokens, tokens / TTFT", fixed(1, 512, 1), repeats=5, quick_repeats=3,
         in_quick=True, figure="prompt"),
    Load("intruder", "5,000-token prompt among 16 streams, p99 gap", repeats=3, figure="gap"),
]
BY_NAME = {load.name: load for load in LOADS}
