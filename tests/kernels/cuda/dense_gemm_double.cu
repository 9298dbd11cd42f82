// Stands in for cuBLASLt where no library runs: one thread an output element, fp32, column after
// column. Refuses an odd number of rows, as a library may refuse a shape.
#include "kernels/cuda/dev/dev.h"
#include "kernels/cuda/linear/dense_gemm.h"
#include "kernels/cuda/linear/layout.h"
#include "kernels/cuda/linear/piece.h"

namespace quire::cuda {
namespace {

constexpr int kThreads = 64;

template <typename T>
__global__ void dense_product(LinearJob job) {
  const int row = static_cast<int>(blockIdx.x) * kThreads + thread_rank();
  if (row >= job.rows) return;
  const size_t token = blockIdx.y;
  const Columns range = job.outputs[blockIdx.z];
  const auto columns = static_cast<size_t>(job.columns);
  const auto* w = reinterpret_cast<const T*>(
      job.data + static_cast<size_t>(row) * plain_stride(Format::kBf16, job.columns));
  const auto* x = static_cast<const uint16_t*>(job.in) + token * columns;
  float sum = 0.0f;
  for (int k = range.begin; k < range.end; ++k) {
    sum = fmaf(to_float(w[k]), unpack2<T>(pair_as<T>(x[k])).x, sum);
  }
  if (job.bias != nullptr) sum += job.bias[row];
  job.out[blockIdx.z * job.out_subtree_stride + token * job.out_stride + static_cast<size_t>(row)] =
      sum;
}

class DenseGemmDouble final : public DenseGemm {
 public:
  bool run(cudaStream_t stream, Format format, const LinearJob& job, cudaError_t& error) override {
    if (job.rows % 2 != 0) return false;
    const dim3 grid(static_cast<unsigned>((job.rows + kThreads - 1) / kThreads),
                    static_cast<unsigned>(job.tokens), static_cast<unsigned>(job.num_outputs));
    const auto kernel = format == Format::kF16 ? dense_product<f16> : dense_product<bf16>;
    error = launch(kernel, grid, kThreads, 0, stream, job);
    return true;
  }
  std::string describe(Format, const LinearJob&) const override { return "dense_double"; }
};

}  // namespace

std::unique_ptr<DenseGemm> make_dense_gemm(const std::string&) {
  return std::make_unique<DenseGemmDouble>();
}

}  // namespace quire::cuda
