"""The goldens of small checkpoints through a running server: greedy answers to prompts of token ids,
held against what transformers gave in fp32 (data/models/*/golden.json)."""

import json
import os

import machine
from steps import StepFailed

# Of the tiny random ones the tokenizers' ways with broken UTF-8 differ, so their texts are not compared:
# logprobs this near tell a wrong token.
MODELS = {"stories260K": "stories260K/hf", "rope3": "tiny-random/llama-rope3", "yarn_bias": "tiny-random/llama-yarn-bias"}
CLOSE = 5e-3  # two best logprobs nearer than this: either may come first (fp32 arithmetic)


def folder(name):
    return os.path.join(machine.bundle(), "data/models", MODELS[name])


def tokens_compared(case, close):
    """How many tokens are certain: up to the first near tie."""
    for i, step in enumerate(case["steps"]):
        if step["gap"] < close:
            return i
    return len(case["steps"])


def check_case(case, answer, tolerance, close, compare_text):
    """The largest |d logprob| of the sampled tokens. Raises where an answer is another."""
    choice = answer["choices"][0]
    wanted = tokens_compared(case, close)
    if compare_text and wanted == len(case["steps"]) and choice["text"] != case["text"]:
        raise StepFailed(f"{case['prompt']!r}: {choice['text']!r} instead of {case['text']!r}")
    ours = choice["logprobs"]["token_logprobs"]
    if len(ours) != len(case["greedy_ids"]):
        raise StepFailed(f"{case['prompt']!r}: {len(ours)} tokens instead of {len(case['greedy_ids'])}")
    worst = 0.0
    for i in range(wanted):
        step = case["steps"][i]
        best = next(logprob for token, logprob in step["top"] if token == case["greedy_ids"][i])
        worst = max(worst, abs(ours[i] - best))
        if not worst <= tolerance:
            raise StepFailed(f"{case['prompt']!r}, token {i}: logprob {ours[i]} instead of {best}")
    return worst


def check_model(server, name, tolerance, close=CLOSE):
    """All cases of one model, which `server` serves. A row of results."""
    with open(os.path.join(folder(name), "golden.json"), encoding="utf-8") as file:
        cases = json.load(file)["cases"]
    worst, compared = 0.0, 0
    for case in cases:
        answer = server.complete(prompt=case["prompt_ids"], max_tokens=len(case["greedy_ids"]), temperature=0,
                                 logprobs=1, ignore_eos=True)
        worst = max(worst, check_case(case, answer, tolerance, close, name == "stories260K"))
        compared += tokens_compared(case, close)
    if compared < 20:
        raise StepFailed(f"{name}: only {compared} tokens could be compared")
    return {"bench": "goldens", "model": name, "ranks": server.ranks, "tokens": compared, "worst_logprob": worst,
            "tolerance": tolerance}
