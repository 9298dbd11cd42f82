"""Scores the reference texts with vLLM's offline API in bf16, by the logprobs of prompts: goldens are prefilled, not
decoded. bf16 logits tie: a golden token counts as the best where none is above it.

    python vllm_score.py MODEL_FOLDER DATA WINDOWS OUT.json
"""

import sys

import vllm

import texts

LONGEST = 2560  # tokens of a text


def main():
    folder, data, windows, out = sys.argv[1:]
    goldens, real = texts.read(data, int(windows))
    engine = vllm.LLM(model=folder, dtype="bfloat16", max_model_len=LONGEST, enable_prefix_caching=False,
                      skip_tokenizer_init=True, enforce_eager=True)
    sampling = vllm.SamplingParams(max_tokens=1, prompt_logprobs=1, temperature=0, detokenize=False)
    prompts = [{"prompt_token_ids": ids} for ids in [prompt + output for prompt, output in goldens] + real]
    answers = [answer.prompt_logprobs for answer in engine.generate(prompts, sampling)]
    golden, argmax = [], []
    for (prompt, output), rows in zip(goldens, answers):
        for token, row in zip(output, rows[len(prompt):]):
            golden.append(row[token].logprob)
            argmax.append(row[token].logprob >= max(entry.logprob for entry in row.values()))
    nll = []
    for ids, rows in zip(real, answers[len(goldens):]):
        nll.append(-sum(row[token].logprob for token, row in zip(ids[1:], rows[1:])) / (len(ids) - 1))
    texts.write(out, f"vLLM {vllm.__version__.split('+')[0]} CPU, bf16", golden, argmax, nll)


if __name__ == "__main__":
    main()
