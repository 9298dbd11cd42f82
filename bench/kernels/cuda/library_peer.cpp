#include "bench/kernels/cuda/library_peer.h"

#include <cublasLt.h>

#include <cstdio>
#include <cstdlib>

namespace quire::bench {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;

void check(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "cuBLASLt, as the peer: status %d\n", static_cast<int>(status));
  std::exit(1);
}

class Lt final : public LibraryPeer {
 public:
  Lt() : workspace_(kWorkspaceBytes) {
    check(cublasLtCreate(&handle_));
    check(cublasLtMatmulDescInit(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(cublasLtMatmulDescSetAttribute(&product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof transposed));
  }
  ~Lt() override { cublasLtDestroy(handle_); }

  bool prepare(int tokens, int rows, int columns) override {
    const auto t = static_cast<std::uint64_t>(tokens), n = static_cast<std::uint64_t>(rows),
               k = static_cast<std::uint64_t>(columns);
    check(cublasLtMatrixLayoutInit(&weight_, CUDA_R_16BF, k, n, columns));
    check(cublasLtMatrixLayoutInit(&in_, CUDA_R_16BF, k, t, columns));
    check(cublasLtMatrixLayoutInit(&out_, CUDA_R_16BF, n, t, rows));
    cublasLtMatmulPreferenceOpaque_t wishes;
    check(cublasLtMatmulPreferenceInit(&wishes));
    check(cublasLtMatmulPreferenceSetAttribute(&wishes, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &kWorkspaceBytes, sizeof kWorkspaceBytes));
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_, &product_, &weight_, &in_, &out_, &out_, &wishes, 1, &choice_, &found);
    return status == CUBLAS_STATUS_SUCCESS && found > 0;
  }

  cudaError_t run(cudaStream_t stream, const void* weight, const void* in, void* out) override {
    const float one = 1.0f, zero = 0.0f;
    const cublasStatus_t status =
        cublasLtMatmul(handle_, &product_, &one, weight, &weight_, in, &in_, &zero, out, &out_, out,
                       &out_, &choice_.algo, workspace_.as<void>(), kWorkspaceBytes, stream);
    return status == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorLaunchFailure;
  }

 private:
  cublasLtHandle_t handle_ = nullptr;
  DeviceMemory workspace_;
  cublasLtMatmulDescOpaque_t product_;
  cublasLtMatrixLayoutOpaque_t weight_, in_, out_;
  cublasLtMatmulHeuristicResult_t choice_;
};

}  // namespace

std::unique_ptr<LibraryPeer> make_library_peer() {
  return std::make_unique<Lt>();
}

}  // namespace quire::bench
