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
  // bf16 or f16 weights and bf16 input whose pieces are whole (has_whole_pieces). False: the
  // library has no algorithm for this shape; what was enqueued, if anything, only writes what the
  // product writes. One thread at a time.
  virtual bool run(cudaStream_t stream, Format format, const LinearJob& job,
                   cudaError_t& error) = 0;
  // "cublaslt", and what was chosen for the shape if it was asked for before.
  virtual std::string describe(Format format, const LinearJob& job) const = 0;
};

// `cache_folder`: where the algorithms it chose are kept for the next start; empty: nowhere.
std::unique_ptr<DenseGemm> make_dense_gemm(const std::string& cache_folder);

}  // namespace quire::cuda
