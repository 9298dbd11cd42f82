// The whole worker over the CUDA backend: real kernels, device, ops, communicator; the execution
// model and NCCL are the tests' (emulated.h).
#include "tests/worker/golden_cases.h"

#include "tests/worker/cuda/emulated.h"

namespace quire::test {

std::vector<GoldenCase> golden_cases() {
  std::vector<GoldenCase> cases;
  for (const int world : {1, 2, 3}) {
    const std::string ranks = "_" + std::to_string(world);
    cases.push_back({"stories_cuda" + ranks, "stories260K/hf", "stories260K/hf", "cuda", world,
                     1e-3, open_emulated});
    cases.push_back({"rope3_cuda" + ranks, "tiny-random/llama-rope3", "tiny-random/llama-rope3",
                     "cuda", world, 2e-3, open_emulated});
    cases.push_back({"yarn_bias_cuda" + ranks, "tiny-random/llama-yarn-bias",
                     "tiny-random/llama-yarn-bias", "cuda", world, 2e-3, open_emulated});
    cases.push_back({"window_cuda" + ranks, "tiny-random/mistral-swa", "tiny-random/mistral-swa",
                     "cuda", world, 2e-3, open_emulated});
  }
  return cases;
}

}  // namespace quire::test
