#include "tests/worker/golden_cases.h"

namespace quire::test {

std::vector<GoldenCase> golden_cases() {
  return {
      {"stories_gguf_reference", "stories260K/hf", "stories260K/stories260K.F32.gguf", "reference",
       1, 1e-3},
      {"stories_hf_reference", "stories260K/hf", "stories260K/hf", "reference", 1, 1e-3},
      {"stories_hf_reference_2", "stories260K/hf", "stories260K/hf", "reference", 2, 1e-3},
      {"stories_gguf_cpu", "stories260K/hf", "stories260K/stories260K.F32.gguf", "cpu", 1, 1e-3},
      {"stories_hf_cpu_3", "stories260K/hf", "stories260K/hf", "cpu", 3, 1e-3},
      {"rope3_reference", "tiny-random/llama-rope3", "tiny-random/llama-rope3", "reference", 1,
       2e-3},
      {"rope3_cpu_2", "tiny-random/llama-rope3", "tiny-random/llama-rope3", "cpu", 2, 2e-3},
      {"yarn_bias_reference", "tiny-random/llama-yarn-bias", "tiny-random/llama-yarn-bias",
       "reference", 1, 2e-3},
      {"yarn_bias_cpu", "tiny-random/llama-yarn-bias", "tiny-random/llama-yarn-bias", "cpu", 1,
       2e-3},
      {"yarn_bias_cpu_4", "tiny-random/llama-yarn-bias", "tiny-random/llama-yarn-bias", "cpu", 4,
       2e-3},
      {"window_reference", "tiny-random/mistral-swa", "tiny-random/mistral-swa", "reference", 1,
       2e-3},
      {"window_cpu", "tiny-random/mistral-swa", "tiny-random/mistral-swa", "cpu", 1, 2e-3},
      {"window_cpu_3", "tiny-random/mistral-swa", "tiny-random/mistral-swa", "cpu", 3, 2e-3},
  };
}

}  // namespace quire::test
