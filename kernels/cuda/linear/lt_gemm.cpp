// cuBLASLt for bf16 and f16 weights and many tokens. Each LtShape runs one algorithm, which LtTable
// chooses by measured time and keeps. Workspace, handle and the room for converted input belong to
// the object and are never replaced; nothing is allocated or timed while a stream is captured.
//
// The library counts columns first: our out[t][n] is its D, N x T; the weights [n][k] are A,
// transposed; the input [t][k] is B. Both are of one type: for f16 weights the bf16 input is
// converted first, as many tokens at once as its room holds.
#include "kernels/cuda/linear/lt_gemm.h"

#include <cublasLt.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/linear/dense_gemm.h"
#include "kernels/cuda/linear/kernels.h"
#include "kernels/cuda/linear/lt_table.h"
#include "spdlog/spdlog.h"

namespace quire::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;  // what NVIDIA advises for sm_90
constexpr std::size_t kInputBytes = std::size_t{64} << 20;      // 2,340 tokens of 14,336 columns
constexpr int kCandidates = 8;
constexpr int kTimedRuns = 5;

static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(LtAlgorithm));

cublasLtMatmulAlgo_t library_words(const LtAlgorithm& algorithm) {
  cublasLtMatmulAlgo_t words;
  std::memcpy(&words, algorithm.data(), sizeof(words));
  return words;
}

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
  const cudaDataType_t type = shape.format == Format::kF16 ? CUDA_R_16F : CUDA_R_16BF;
  if (cublasLtMatmulDescInit(&d.product, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS ||
      !set(d, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T) ||
      cublasLtMatrixLayoutInit(&d.weights, type, columns, rows, shape.weight_stride) !=
          CUBLAS_STATUS_SUCCESS ||
      cublasLtMatrixLayoutInit(&d.input, type, columns, t, shape.weight_stride) !=
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

// The heuristics look at the bias pointer's alignment only.
const float* some_bias(const LtShape& shape) {
  return shape.has_bias ? reinterpret_cast<const float*>(std::size_t{256}) : nullptr;
}

std::string gpu_name() {
  int device = 0;
  cudaDeviceProp properties = {};
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
    return "an unknown GPU";
  }
  return properties.name;
}

bool is_captured(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) != cudaSuccess ||
         status != cudaStreamCaptureStatusNone;
}

class LtGemm final : public DenseGemm {
 public:
  explicit LtGemm(const std::string& cache_folder)
      : table_(cache_folder, gpu_name(), std::to_string(cublasLtGetVersion()),
               [](const std::string& sentence) { spdlog::warn("{}", sentence); }) {
    if (cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS) handle_ = nullptr;
    if (handle_ != nullptr && cudaMalloc(&workspace_, kWorkspaceBytes) == cudaSuccess) {
      workspace_bytes_ = kWorkspaceBytes;
    }
    cudaEventCreate(&begin_);
    cudaEventCreate(&end_);
  }
  ~LtGemm() override {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaFree(input_);
    cudaFree(workspace_);
    if (handle_ != nullptr) cublasLtDestroy(handle_);
  }

  bool run(cudaStream_t stream, Format format, const LinearJob& job, cudaError_t& error) override {
    error = cudaSuccess;
    if (handle_ == nullptr) return false;
    if (format != Format::kF16) return run_all(stream, format, job, error);
    if (!has_input_room(stream)) return false;
    const auto columns = static_cast<std::size_t>(job.columns);
    const auto most = static_cast<int>(kInputBytes / (2 * columns));
    LinearJob part = job;
    part.in = input_;
    for (int first = 0; first < job.tokens; first += most) {
      const auto at = static_cast<std::size_t>(first);
      part.tokens = std::min(most, job.tokens - first);
      part.out = job.out + at * job.out_stride;
      error = to_f16(stream, static_cast<const std::uint16_t*>(job.in) + at * columns,
                     static_cast<std::size_t>(part.tokens) * columns, input_);
      if (error != cudaSuccess) return true;
      if (!run_all(stream, format, part, error)) return false;
      if (error != cudaSuccess) return true;
    }
    return true;
  }

  std::string describe(Format format, const LinearJob& job) const override {
    const std::string text = "cublaslt bucket " + std::to_string(lt_bucket(job.tokens));
    const LtChoice* choice = table_.find_like(lt_shape(format, job, 0));
    if (choice == nullptr) return text;
    const cublasLtMatmulAlgo_t algorithm = library_words(choice->algorithm);
    int id = -1;
    cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_ID, &id, sizeof(id),
                                         nullptr);
    return text + " algorithm " + std::to_string(id);
  }

 private:
  // One product of each output; false: refused before anything that counts was enqueued, the whole
  // is done again by our kernel.
  bool run_all(cudaStream_t stream, Format format, const LinearJob& job, cudaError_t& error) {
    for (int o = 0; o < job.num_outputs; ++o) {
      if (job.outputs[o].begin == job.outputs[o].end) return false;
      if (choose(stream, format, job, o) == nullptr) return false;
    }
    for (int o = 0; o < job.num_outputs; ++o) {
      const LtShape shape = lt_shape(format, job, o);
      const cublasStatus_t status = run_one(stream, shape, job, o, table_.find(shape)->algorithm);
      if (status == CUBLAS_STATUS_SUCCESS) continue;
      if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
        return false;
      }
      error = cudaErrorLaunchFailure;
      return true;
    }
    return true;
  }

  const LtChoice* choose(cudaStream_t stream, Format format, const LinearJob& job, int output) {
    const LtShape shape = lt_shape(format, job, output);
    if (table_.knows(shape)) return table_.find(shape);
    const LtProbe probe{
        [&](const LtAlgorithm& algorithm) { return fits(shape, algorithm); },
        [&] { return candidates(shape); },
        [&](const LtAlgorithm& algorithm) { return time(stream, shape, job, output, algorithm); }};
    return table_.choose(shape, probe, !is_captured(stream));
  }

  bool fits(const LtShape& shape, const LtAlgorithm& algorithm) const {
    Descriptions d;
    const cublasLtMatmulAlgo_t words = library_words(algorithm);
    cublasLtMatmulHeuristicResult_t result;
    return describe_product(shape, shape.bucket, some_bias(shape), d) &&
           cublasLtMatmulAlgoCheck(handle_, &d.product, &d.weights, &d.input, &d.out, &d.out,
                                   &words, &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= workspace_bytes_;
  }

  std::vector<LtAlgorithm> candidates(const LtShape& shape) const {
    Descriptions d;
    cublasLtMatmulPreferenceOpaque_t wishes;
    cublasLtMatmulHeuristicResult_t results[kCandidates];
    int found = 0;
    std::vector<LtAlgorithm> all;
    if (!describe_product(shape, shape.bucket, some_bias(shape), d) ||
        !describe_wishes(shape, workspace_bytes_, wishes) ||
        cublasLtMatmulAlgoGetHeuristic(handle_, &d.product, &d.weights, &d.input, &d.out, &d.out,
                                       &wishes, kCandidates, results,
                                       &found) != CUBLAS_STATUS_SUCCESS) {
      return all;
    }
    for (int i = 0; i < found; ++i) {
      if (results[i].state != CUBLAS_STATUS_SUCCESS) continue;
      std::memcpy(all.emplace_back().data(), &results[i].algo, sizeof(LtAlgorithm));
    }
    return all;
  }

  // Of the product itself: its result is computed again by the algorithm that wins.
  std::optional<double> time(cudaStream_t stream, const LtShape& shape, const LinearJob& job,
                             int output, const LtAlgorithm& algorithm) {
    if (run_one(stream, shape, job, output, algorithm) != CUBLAS_STATUS_SUCCESS) return {};
    cudaEventRecord(begin_, stream);
    for (int i = 0; i < kTimedRuns; ++i) run_one(stream, shape, job, output, algorithm);
    cudaEventRecord(end_, stream);
    float milliseconds = 0.0f;
    if (cudaEventSynchronize(end_) != cudaSuccess ||
        cudaEventElapsedTime(&milliseconds, begin_, end_) != cudaSuccess) {
      return {};
    }
    return std::max(1e-3, 1e3 * static_cast<double>(milliseconds) / kTimedRuns);
  }

  cublasStatus_t run_one(cudaStream_t stream, const LtShape& shape, const LinearJob& job,
                         int output, const LtAlgorithm& algorithm) {
    const std::size_t begin = 2 * static_cast<std::size_t>(job.outputs[output].begin);
    float* out = job.out + static_cast<std::size_t>(output) * job.out_subtree_stride;
    Descriptions d;
    if (!describe_product(shape, job.tokens, job.bias, d)) return CUBLAS_STATUS_INTERNAL_ERROR;
    const cublasLtMatmulAlgo_t words = library_words(algorithm);
    const float one = 1.0f;
    const float zero = 0.0f;
    return cublasLtMatmul(handle_, &d.product, &one, job.data + begin, &d.weights,
                          static_cast<const std::byte*>(job.in) + begin, &d.input, &zero, out,
                          &d.out, out, &d.out, &words, workspace_, workspace_bytes_, stream);
  }

  bool has_input_room(cudaStream_t stream) {
    if (input_ != nullptr) return true;
    if (is_captured(stream)) return false;
    if (cudaMalloc(&input_, kInputBytes) == cudaSuccess) return true;
    cudaGetLastError();
    input_ = nullptr;
    return false;
  }

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::size_t workspace_bytes_ = 0;
  void* input_ = nullptr;  // f16, for f16 weights
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  LtTable table_;
};

}  // namespace

std::unique_ptr<DenseGemm> make_dense_gemm(const std::string& cache_folder) {
  return std::make_unique<LtGemm>(cache_folder);
}

}  // namespace quire::cuda
