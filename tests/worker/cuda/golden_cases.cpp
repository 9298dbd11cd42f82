// The whole worker over the CUDA backend: real kernels, device, ops, communicator; the execution
// model and NCCL are the tests' (tests/cuda_emulation, tests/fakes/fake_nccl). Ranks are threads,
// and streams run when they are waited for: an exchange that ran inside its call would hold up the
// rank.
#include "tests/worker/golden_cases.h"

#include "kernels/cuda/device.h"
#include "tests/cuda_emulation/control.h"
#include "tests/fakes/fake_nccl.h"

namespace quire::test {
namespace {

absl::StatusOr<std::unique_ptr<Device>> open_emulated(const DeviceOptions& options) {
  cuda_emulation::set_stream_mode(cuda_emulation::StreamMode::kDeferred);
  return cuda::open_cuda(options, [] { return fake_nccl(); });
}

}  // namespace

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
