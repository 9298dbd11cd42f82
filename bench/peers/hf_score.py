"""Scores the reference texts with transformers in bf16: the prompt at once, then a golden token a step.

    python hf_score.py MODEL_FOLDER DATA WINDOWS OUT.json
"""

import sys

import torch
import transformers

import texts


def logprobs(logits):
    return torch.log_softmax(logits.double(), dim=-1)


def score_golden(model, prompt, output):
    """(logprob, whether it is the best: of equal ones that of the lowest id) of each golden token."""
    found, fed, past = [], prompt, None
    for token in output:
        step = model(torch.tensor([fed]), past_key_values=past, use_cache=True, logits_to_keep=1)
        row = logprobs(step.logits[0, -1])
        found.append((float(row[token]), int((row == row.max()).nonzero()[0]) == token))
        fed, past = [token], step.past_key_values
    return found


def score_window(model, ids):
    rows = logprobs(model(torch.tensor([ids])).logits[0, :-1])
    return -float(rows.gather(1, torch.tensor(ids[1:])[:, None]).mean())


def main():
    folder, data, windows, out = sys.argv[1:]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16,
                                                              attn_implementation="eager").eval()
    goldens, real = texts.read(data, int(windows))
    with torch.inference_mode():
        found = [one for prompt, output in goldens for one in score_golden(model, prompt, output)]
        nll = [score_window(model, ids) for ids in real]
    texts.write(out, f"transformers {transformers.__version__}, bf16", [logprob for logprob, _ in found],
                [best for _, best in found], nll)


if __name__ == "__main__":
    main()
