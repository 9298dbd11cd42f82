// The worker over the CUDA backend on one GPU: real kernels, device and stream. Several ranks on
// one GPU need a process each (NCCL, CUDA IPC): tests/gpu/ranks.py starts those.
#include "tests/worker/golden_cases.h"

#include "kernels/cuda/device.h"

namespace quire::test {
namespace {

absl::StatusOr<std::unique_ptr<Device>> open_gpu(const DeviceOptions& options) {
  return cuda::open_cuda(options, [] { return cuda::load_nccl(); });
}

}  // namespace

std::vector<GoldenCase> golden_cases() {
  std::vector<GoldenCase> cases;
  cases.push_back({"stories_gpu", "stories260K/hf", "stories260K/hf", "cuda", 1, 1e-3, open_gpu});
  cases.push_back({"rope3_gpu", "tiny-random/llama-rope3", "tiny-random/llama-rope3", "cuda", 1,
                   2e-3, open_gpu});
  cases.push_back({"yarn_bias_gpu", "tiny-random/llama-yarn-bias", "tiny-random/llama-yarn-bias",
                   "cuda", 1, 2e-3, open_gpu});
  return cases;
}

}  // namespace quire::test
