"""Writes beam_reference.h: what Hugging Face's beam search finds in the model of beam_model.h.

Run by hand, with transformers 5 and torch installed: python make_beam_reference.py > beam_reference.h
"""

import itertools

import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import CausalLMOutput

MASK = 2**64 - 1
VOCAB, SPREAD, MAX_TOKENS = 11, 4.0, 10
PROMPT = VOCAB  # one token that is never generated: the hash starts behind it


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


class HashConfig(PretrainedConfig):
    model_type = "hash"
    vocab_size = VOCAB + 1


class HashModel(PreTrainedModel, GenerationMixin):
    config_class = HashConfig
    seed, eos_logit = 0, 0.0

    def __init__(self, config):
        super().__init__(config)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, **kwargs):
        rows = []
        for prefix in input_ids.tolist():
            state = mix(self.seed)
            for token in prefix[1:]:
                state = mix(state ^ token)
            row = [SPREAD * (mix((state + t) & MASK) >> 40) / 2**24 for t in range(VOCAB)]
            row[0] += self.eos_logit
            rows.append(row + [float("-inf")])
        return CausalLMOutput(logits=torch.tensor(rows).unsqueeze(1))

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}


def main():
    # A width of 1 would be greedy search; what is asked here is the beam search of width 1.
    GenerationConfig.get_generation_mode = lambda self, *args: GenerationMode.BEAM_SEARCH
    model = HashModel(HashConfig()).eval()
    print(f"// What transformers {transformers.__version__} finds: written by make_beam_reference.py.")
    print("// clang-format off")
    print("#pragma once\n\n#include <cstdint>\n#include <vector>\n")
    print('#include "coordinator/schedule/beam_params.h"\n\nnamespace quire::test {\n')
    print("struct ReferenceBeam {\n  double score;\n  std::vector<int> tokens;\n};")
    print("struct ReferenceSearch {\n  std::uint64_t seed;\n  double eos_logit;")
    print("  BeamParams params;\n  std::vector<ReferenceBeam> beams;\n};\n")
    print(f"inline constexpr int kReferenceVocab = {VOCAB};")
    print(f"inline constexpr int kReferenceMaxTokens = {MAX_TOKENS};\n")
    print("inline std::vector<ReferenceSearch> reference_searches() {")
    print("  using Stop = BeamParams::EarlyStopping;\n  return {")
    modes = {True: "kYes", False: "kNo", "never": "kNever"}
    cases = itertools.product([1, 2, 4, 8], [-1.0, 0.0, 0.5, 1.0, 2.0], [False, True, "never"])
    for seed, (width, penalty, early) in enumerate(cases):
        model.seed, model.eos_logit = seed, [1.0, 3.0, -0.5][(seed // 3 + seed) % 3]
        settings = GenerationConfig(
            num_beams=width, num_return_sequences=width, length_penalty=penalty, early_stopping=early,
            max_new_tokens=MAX_TOKENS, eos_token_id=0, pad_token_id=PROMPT, do_sample=False, use_cache=False,
            return_dict_in_generate=True, output_scores=True)  # fmt: skip
        found = model.generate(torch.tensor([[PROMPT]]), generation_config=settings)
        print(f"      {{{seed}, {model.eos_logit}, {{{width}, {penalty}, Stop::{modes[early]}}}, {{")
        for ids, score in zip(found.sequences.tolist(), found.sequences_scores.tolist()):
            tokens = [t for t in ids[1:] if t != PROMPT]
            print(f"          {{{score:.6f}, {{{', '.join(map(str, tokens))}}}}},")
        print("      }},")
    print("  };\n}\n\n}  // namespace quire::test")


if __name__ == "__main__":
    main()
