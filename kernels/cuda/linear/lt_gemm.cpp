// cuBLASLt for bf16 weights and many tokens. The heuristics are asked once for each LtShape and the
// algorithm is kept: the same shape runs the same kernel for the life of the process. Workspace and
// handle belong to the object; nothing is allocated while a stream is captured.
//
// The library counts columns first: our out[t][n] is its D, N x T; the weights [n][k] are A,
// transposed; the input [t][k] is B.
#include "kernels/cuda/linear/lt_gemm.h"

#include <cublasLt.h>

#include <map>

#include "kernels/cuda/linear/dense_gemm.h"

namespace quire::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;  // what NVIDIA advises for sm_90

// The library's descriptions of one product, in place: no allocation on the way of a step.
struct Descriptions {
  cublasLtMatmulDescOpaque_t product;
  cublasLtMatrixLayoutOpaque_t weights, input, out;
};

template <typename T>
bool set(Descriptions& d, cublasLtMatmulDescAttributes_t what, const T& value) {
  return cublasLtMatmulDescSetAttribute(&d.product, what, &value, sizeof(value)) ==
         CUBLAS_STATUS_SUCCESS;
}

bool describe_product(const LtShape& shape, int tokens, const float* bias, Descriptions& d) {
  const auto rows = static_cast<std::uint64_t>(shape.rows);
  const auto columns = static_cast<std::uint64_t>(shape.columns);
  const auto t = static_cast<std::uint64_t>(tokens);
  if (cublasLtMatmulDescInit(&d.product, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS ||
      !set(d, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T) ||
      cublasLtMatrixLayoutInit(&d.weights, CUDA_R_16BF, columns, rows, shape.weight_stride) !=
          CUBLAS_STATUS_SUCCESS ||
      cublasLtMatrixLayoutInit(&d.input, CUDA_R_16BF, columns, t, shape.weight_stride) !=
          CUBLAS_STATUS_SUCCESS ||
      cublasLtMatrixLayoutInit(&d.out, CUDA_R_32F, rows, t, shape.out_stride) !=
          CUBLAS_STATUS_SUCCESS) {
    return false;
  }
  return bias == nullptr || (set(d, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS) &&
                             set(d, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias));
}

// Reductions by split K in fp32, in a fixed order; none through the output's own type or in place.
bool describe_wishes(const LtShape& shape, std::size_t workspace_bytes,
                     cublasLtMatmulPreferenceOpaque_t& wishes) {
  const auto wish = [&wishes](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
    return cublasLtMatmulPreferenceSetAttribute(&wishes, what, &value, sizeof(value)) ==
           CUBLAS_STATUS_SUCCESS;
  };
  return cublasLtMatmulPreferenceInit(&wishes) == CUBLAS_STATUS_SUCCESS &&
         wish(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes) &&
         wish(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
              static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)) &&
         wish(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.weight_alignment) &&
         wish(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.input_alignment) &&
         wish(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.out_alignment) &&
         wish(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.out_alignment);
}

struct Pinned {
  bool exists = false;
  cublasLtMatmulAlgo_t algorithm = {};
  int id = -1;
};

class LtGemm final : public DenseGemm {
 public:
  LtGemm() {
    if (cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS) handle_ = nullptr;
    if (handle_ != nullptr && cudaMalloc(&workspace_, kWorkspaceBytes) == cudaSuccess) {
      workspace_bytes_ = kWorkspaceBytes;
    }
  }
  ~LtGemm() override {
    cudaFree(workspace_);
    if (handle_ != nullptr) cublasLtDestroy(handle_);
  }

  bool run(cudaStream_t stream, const LinearJob& job, cudaError_t& error) override {
    error = cudaSuccess;
    if (handle_ == nullptr) return false;
    for (int o = 0; o < job.num_outputs; ++o) {
      if (job.outputs[o].begin == job.outputs[o].end) return false;
      if (!pinned(lt_shape(job, o)).exists) return false;
    }
    for (int o = 0; o < job.num_outputs; ++o) {
      const cublasStatus_t status = run_one(stream, job, o);
      if (status == CUBLAS_STATUS_SUCCESS) continue;
      // Refused before anything was enqueued: the whole product is done again by our kernel.
      if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
        return false;
      }
      error = cudaErrorLaunchFailure;
      return true;
    }
    return true;
  }

  std::string describe(const LinearJob& job) const override {
    std::string text = "cublaslt bucket " + std::to_string(lt_bucket(job.tokens));
    for (const auto& [shape, pinned] : table_) {
      if (shape.bucket != lt_bucket(job.tokens) || shape.rows != job.rows ||
          shape.columns != job.outputs[0].end - job.outputs[0].begin) {
        continue;
      }
      return text + (pinned.exists ? " algorithm " + std::to_string(pinned.id) : " refused");
    }
    return text;
  }

 private:
  const Pinned& pinned(const LtShape& shape) {
    const auto [row, is_new] = table_.try_emplace(shape);
    if (is_new) ask(shape, row->second);
    return row->second;
  }

  void ask(const LtShape& shape, Pinned& pinned) {
    // The heuristics look at the bias pointer's alignment only.
    const auto* bias = shape.has_bias ? reinterpret_cast<const float*>(std::size_t{256}) : nullptr;
    Descriptions d;
    cublasLtMatmulPreferenceOpaque_t wishes;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    if (!describe_product(shape, shape.bucket, bias, d) ||
        !describe_wishes(shape, workspace_bytes_, wishes) ||
        cublasLtMatmulAlgoGetHeuristic(handle_, &d.product, &d.weights, &d.input, &d.out, &d.out,
                                       &wishes, 1, &result, &found) != CUBLAS_STATUS_SUCCESS ||
        found == 0 || result.state != CUBLAS_STATUS_SUCCESS) {
      return;
    }
    pinned.exists = true;
    pinned.algorithm = result.algo;
    cublasLtMatmulAlgoConfigGetAttribute(&pinned.algorithm, CUBLASLT_ALGO_CONFIG_ID, &pinned.id,
                                         sizeof(pinned.id), nullptr);
  }

  cublasStatus_t run_one(cudaStream_t stream, const LinearJob& job, int output) {
    const LtShape shape = lt_shape(job, output);
    const std::size_t begin = 2 * static_cast<std::size_t>(job.outputs[output].begin);
    float* out = job.out + static_cast<std::size_t>(output) * job.out_subtree_stride;
    Descriptions d;
    if (!describe_product(shape, job.tokens, job.bias, d)) return CUBLAS_STATUS_INTERNAL_ERROR;
    const float one = 1.0f;
    const float zero = 0.0f;
    return cublasLtMatmul(handle_, &d.product, &one, job.data + begin, &d.weights,
                          static_cast<const std::byte*>(job.in) + begin, &d.input, &zero, out,
                          &d.out, out, &d.out, &pinned(shape).algorithm, workspace_,
                          workspace_bytes_, stream);
  }

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::size_t workspace_bytes_ = 0;
  std::map<LtShape, Pinned> table_;
};

}  // namespace

std::unique_ptr<DenseGemm> make_dense_gemm() {
  return std::make_unique<LtGemm>();
}

}  // namespace quire::cuda
