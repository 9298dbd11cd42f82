// Which kernel runs a product: the first row of a table that fits. Tiles change no bit, so their
// shape is chosen freely; the kernel's kind does, so with `deterministic` it depends on the input's
// layout alone.
#include "kernels/cuda/linear/linear.h"

#include <limits>

#include "kernels/cuda/linear/dense_gemm.h"
#include "kernels/cuda/linear/kernels.h"
#include "kernels/cuda/linear/layout.h"

namespace quire::cuda {
namespace {

enum class Kernel { kStreamFma, kStreamMma, kTileMma, kTileSimt, kDense };

constexpr const char* name_of(Kernel kernel) {
  switch (kernel) {
    case Kernel::kStreamFma:
      return "stream_fma";
    case Kernel::kStreamMma:
      return "stream_mma";
    case Kernel::kTileMma:
      return "tile_mma";
    case Kernel::kTileSimt:
      return "tile_simt";
    case Kernel::kDense:
      return "dense";
  }
  return "";
}

constexpr int kAny = std::numeric_limits<int>::max();

struct Choice {
  Kernel kernel;
  ActivationLayout input;
  int max_tokens;
  bool deterministic;   // may be chosen where bits must not depend on the number of tokens
  bool otherwise;       // may be chosen where they may
  bool library_shapes;  // only bf16 and f16 weights in whole pieces
};

constexpr Choice kChoices[] = {
    {Kernel::kStreamFma, ActivationLayout::kF32, 16, false, true, false},
    {Kernel::kTileSimt, ActivationLayout::kF32, kAny, false, true, false},
    {Kernel::kStreamFma, ActivationLayout::kF32, kAny, true, false, false},
    {Kernel::kStreamMma, ActivationLayout::kBf16, 16, false, true, false},
    {Kernel::kDense, ActivationLayout::kBf16, kAny, false, true, true},
    {Kernel::kTileMma, ActivationLayout::kBf16, kAny, true, true, false},
};

// Large tiles where they fill an H100's 132 multiprocessors.
TileShape tile_shape(const LinearJob& job) {
  if (job.tokens <= 16) return TileShape::k16x32;
  const auto tiles = [](int size, int tile) { return (size + tile - 1) / tile; };
  const int large = tiles(job.tokens, 128) * tiles(job.rows, 128) * job.num_outputs;
  return job.tokens > 64 && large >= 132 ? TileShape::k128x128 : TileShape::k64x64;
}

constexpr const char* name_of(TileShape shape) {
  switch (shape) {
    case TileShape::k16x32:
      return "16x32";
    case TileShape::k64x64:
      return "64x64";
    case TileShape::k128x128:
      return "128x128";
  }
  return "";
}

// Empty outputs are possible: a rank that owns none of the columns.
bool is_valid(const PackedMatrix& weight, const Activation& in, const float* bias) {
  if (in.layout != weight.input || in.columns != weight.columns) return false;
  if (weight.format == Format::kF32 && weight.input == ActivationLayout::kBf16) return false;
  if (weight.outputs.size() > kMaxOutputs) return false;
  for (const Columns& range : weight.outputs) {
    if (range.begin < 0 || range.begin > range.end || range.end > weight.columns) return false;
    if (is_block(weight.format) && (range.begin % kStep != 0 || range.end % kStep != 0)) {
      return false;
    }
  }
  return bias == nullptr || weight.outputs.size() == 1;
}

bool is_library_product(Format format, const LinearJob& job) {
  return (format == Format::kBf16 || format == Format::kF16) && has_whole_pieces(job);
}

class TableLinear final : public Linear {
 public:
  TableLinear(bool deterministic, const std::string& cache_folder)
      : deterministic_(deterministic),
        dense_(deterministic ? nullptr : make_dense_gemm(cache_folder)) {}

  cudaError_t run(cudaStream_t stream, const PackedMatrix& weight, const Activation& in,
                  const float* bias, float* out, std::size_t out_stride,
                  std::size_t out_subtree_stride) override {
    if (!is_valid(weight, in, bias)) return cudaErrorInvalidValue;
    LinearJob job = make_job(weight, in.data, in.rows);
    if (job.tokens == 0 || job.rows == 0 || job.num_outputs == 0) return cudaSuccess;
    job.bias = bias;
    job.out = out;
    job.out_stride = out_stride;
    job.out_subtree_stride = out_subtree_stride;
    return launch_one(stream, weight, job);
  }

  std::string describe(const PackedMatrix& weight, int rows) const override {
    const LinearJob job = make_job(weight, nullptr, rows);
    const Kernel kernel = choose(weight, job);
    std::string text = std::string(name_of(kernel)) + ' ' + traits(weight.format).name;
    if (kernel == Kernel::kTileMma) text = text + ' ' + name_of(tile_shape(job));
    if (kernel == Kernel::kDense)
      text = dense_->describe(weight.format, job) + ' ' + traits(weight.format).name;
    return text + " n" + std::to_string(weight.rows) + " k" + std::to_string(weight.columns) +
           " m" + std::to_string(rows);
  }

 private:
  Kernel choose(const PackedMatrix& weight, const LinearJob& job) const {
    for (const Choice& choice : kChoices) {
      if (choice.input != weight.input || job.tokens > choice.max_tokens) continue;
      if (!(deterministic_ ? choice.deterministic : choice.otherwise)) continue;
      if (choice.library_shapes && !is_library_product(weight.format, job)) {
        continue;
      }
      return choice.kernel;
    }
    return Kernel::kTileMma;  // not reached: the last rows of both layouts take everything
  }

  cudaError_t launch_one(cudaStream_t stream, const PackedMatrix& weight, const LinearJob& job) {
    switch (choose(weight, job)) {
      case Kernel::kStreamFma:
        return stream_fma(stream, weight.format, job);
      case Kernel::kStreamMma:
        return stream_mma(stream, weight.format, job);
      case Kernel::kTileSimt:
        return tile_simt(stream, weight.format, job);
      case Kernel::kDense: {
        cudaError_t error = cudaSuccess;
        if (dense_->run(stream, weight.format, job, error)) return error;
        break;
      }
      case Kernel::kTileMma:
        break;
    }
    return tile_mma(stream, weight.format, tile_shape(job), job);
  }

  const bool deterministic_;
  const std::unique_ptr<DenseGemm> dense_;
};

}  // namespace

LinearJob make_job(const PackedMatrix& weight, const void* in, int tokens) {
  LinearJob job;
  job.data = static_cast<const std::byte*>(weight.data);
  job.rows = weight.rows;
  job.columns = weight.columns;
  job.first_column = weight.first_column;
  if (has_row_scales(weight.format)) {
    const PackedParts parts =
        packed_parts(weight.format, weight.rows, weight.columns, weight.first_column);
    job.row_scales = reinterpret_cast<const float*>(job.data + parts.row_scales);
  }
  job.in = in;
  job.tokens = tokens;
  for (const Columns& range : weight.outputs) job.outputs[job.num_outputs++] = range;
  return job;
}

std::unique_ptr<Linear> make_linear(bool deterministic, const std::string& cache_folder) {
  return std::make_unique<TableLinear>(deterministic, cache_folder);
}

}  // namespace quire::cuda
