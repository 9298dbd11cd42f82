// A product by a library: cuBLASLt on a GPU (lt_gemm.cpp); under emulation, where no library runs,
// a plain fp32 kernel of the tests (tests/kernels/cuda/dense_gemm_double.cu). Which of the two
// make_dense_gemm() gives is decided by what is linked.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "kernels/cuda/linear/job.h"

namespace quire::cuda {

class DenseGemm {
 public:
  virtual ~DenseGemm() = default;
  // bf16 weights and input whose pieces are whole (has_whole_pieces). False: the library has no
  // algorithm for this shape and nothing was enqueued. One thread at a time.
  virtual bool run(cudaStream_t stream, const LinearJob& job, cudaError_t& error) = 0;
  // "cublaslt", and what was pinned for the shape if it was asked for before.
  virtual std::string describe(const LinearJob& job) const = 0;
};

std::unique_ptr<DenseGemm> make_dense_gemm();

}  // namespace quire::cuda
