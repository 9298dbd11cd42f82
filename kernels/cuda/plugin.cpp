// What libquire_cuda.so shows to the program that opens it.
#include "kernels/cuda/device.h"
#include "kernels/cuda_plugin.h"

namespace {

absl::StatusOr<std::unique_ptr<quire::Device>> open(const quire::DeviceOptions& options) {
  return quire::cuda::open_cuda(options, [] { return quire::cuda::load_nccl(); });
}

std::string describe() {
  return quire::cuda::describe_gpus([] { return quire::cuda::load_nccl(); });
}

}  // namespace

extern "C" __attribute__((visibility("default")))
const quire::CudaPlugin quire_cuda_plugin = {QUIRE_VERSION, open, describe};
