// Stands in for cuBLASLt where no library runs: one thread an output element, fp32, column after
// column. Refuses an odd number of rows, as a library may refuse a shape.
#include "kernels/cuda/dev/dev.h"
#include "kernels/cuda/linear/dense_gemm.h"
#include "kernels/cuda/linear/layout.h"

namespace quire::cuda {
namespace {

constexpr int kThreads = 64;

__global__ void dense_product(LinearJob job) {
  const int row = static_cast<int>(blockIdx.x) * kThreads + thread_rank();
  if (row >= job.rows) return;
  const size_t token = blockIdx.y;
  const Columns range = job.outputs[blockIdx.z];
  const auto columns = static_cast<size_t>(job.columns);
  const auto* w = reinterpret_cast<const bf16*>(
      job.data + static_cast<size_t>(row) * plain_stride(Format::kBf16, job.columns));
  const auto* x = static_cast<const bf16*>(job.in) + token * columns;
  float sum = 0.0f;
  for (int k = range.begin; k < range.end; ++k) sum = fmaf(to_float(w[k]), to_float(x[k]), sum);
  if (job.bias != nullptr) sum += job.bias[row];
  job.out[blockIdx.z * job.out_subtree_stride + token * job.out_stride + static_cast<size_t>(row)] =
      sum;
}

class DenseGemmDouble final : public DenseGemm {
 public:
  bool run(cudaStream_t stream, const LinearJob& job, cudaError_t& error) override {
    if (job.rows % 2 != 0) return false;
    const dim3 grid(static_cast<unsigned>((job.rows + kThreads - 1) / kThreads),
                    static_cast<unsigned>(job.tokens), static_cast<unsigned>(job.num_outputs));
    error = launch(dense_product, grid, kThreads, 0, stream, job);
    return true;
  }
  std::string describe(const LinearJob&) const override { return "dense_double"; }
};

}  // namespace

std::unique_ptr<DenseGemm> make_dense_gemm() {
  return std::make_unique<DenseGemmDouble>();
}

}  // namespace quire::cuda
