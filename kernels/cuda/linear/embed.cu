// Rows of a packed matrix as fp32: the embedding reads the same bytes as the vocabulary product.
#include "kernels/cuda/dev/dev.h"
#include "kernels/cuda/linear/linear.h"
#include "kernels/cuda/linear/panel.h"

namespace quire::cuda {
namespace {

constexpr int kThreads = 128;

template <Format kFormat>
__global__ void __launch_bounds__(kThreads)
    embed_rows(LinearJob table, TokenId first_id, const TokenId* tokens, float* out) {
  wait_for_previous_grid();
  const int row = tokens[blockIdx.x] - first_id;
  if (row < 0 || row >= table.rows) return;
  const MatrixView view = view_of<kFormat>(table);
  const float scale = table.row_scales != nullptr ? table.row_scales[row] : 1.0f;
  float* to = out + static_cast<size_t>(blockIdx.x) * static_cast<size_t>(table.columns);
  for (int chunk = thread_rank(); kPiece * chunk < table.columns; chunk += kThreads) {
    float x[kPiece];
    load_piece<kFormat>(view, row, chunk).floats(x);
    for (int k = 0; k < kPiece && kPiece * chunk + k < table.columns; ++k) {
      to[kPiece * chunk + k] = x[k] * scale;
    }
  }
}

template <Format kFormat>
cudaError_t launch_rows(cudaStream_t stream, const PackedMatrix& table, TokenId first_id,
                        const TokenId* tokens, int num_tokens, float* out) {
  return launch_overlapped(embed_rows<kFormat>, static_cast<unsigned>(num_tokens), kThreads, 0,
                           stream, make_job(table, nullptr, 0), first_id, tokens, out);
}

}  // namespace

cudaError_t embed(cudaStream_t stream, const PackedMatrix& table, TokenId first_id,
                  const TokenId* tokens, int num_tokens, float* out) {
  if (num_tokens == 0) return cudaSuccess;
  switch (table.format) {
    case Format::kF32:
      return launch_rows<Format::kF32>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kF16:
      return launch_rows<Format::kF16>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kBf16:
      return launch_rows<Format::kBf16>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kQ8_0:
      return launch_rows<Format::kQ8_0>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kQ4_0:
      return launch_rows<Format::kQ4_0>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kQ4_1:
      return launch_rows<Format::kQ4_1>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kF8E4M3:
      return launch_rows<Format::kF8E4M3>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kI8:
      return launch_rows<Format::kI8>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kQ4_Z:
      return launch_rows<Format::kQ4_Z>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kQ4_K:
      return launch_rows<Format::kQ4_K>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kQ5_K:
      return launch_rows<Format::kQ5_K>(stream, table, first_id, tokens, num_tokens, out);
    case Format::kQ6_K:
      return launch_rows<Format::kQ6_K>(stream, table, first_id, tokens, num_tokens, out);
  }
  return cudaErrorInvalidValue;
}

}  // namespace quire::cuda
