// AWQ, version gemm (arXiv 2306.00978): qweight [K][N/8], each word eight neighbours along N in the
// nibble order 0 2 4 6 1 3 5 7; zeros packed alike; value = (q - z) * scale.
#include <algorithm>

#include "worker/loader/parallel.h"
#include "worker/loader/q4_block.h"
#include "worker/loader/transcode.h"

namespace quire {
namespace {

constexpr int kTile = 64;  // rows of N whose blocks are written side by side: whole cache lines

// Where in its word neighbour n is.
constexpr int kShift[8] = {0, 16, 4, 20, 8, 24, 12, 28};

// Blocks of columns [k, k + 32) for `rows`.
void write_blocks(const RecipeBytes& in, Range rows, int k, const TranscodeJob& job) {
  const auto group = static_cast<std::size_t>(k / in.recipe->group_size);
  std::byte* column =
      job.out + static_cast<std::size_t>(k - job.columns.begin) / kTranscodedBlock * kQ4BlockBytes;
  for (int n = rows.begin; n < rows.end; ++n) {
    const auto word = static_cast<std::size_t>(n / 8);
    const int shift = kShift[n % 8];
    std::byte* block = column + static_cast<std::size_t>(n - job.rows.begin) * job.row_stride;
    const int zero = static_cast<int>(in.zeros.word(group, word) >> shift & 15u);
    std::byte* out =
        write_q4_header(in.scales.number(group, static_cast<std::size_t>(n)), zero, block);
    for (int i = 0; i < 16; ++i) {
      const auto at = static_cast<std::size_t>(k + i);
      const std::uint32_t low = in.values.word(at, word) >> shift & 15u;
      const std::uint32_t high = in.values.word(at + 16, word) >> shift & 15u;
      out[i] = static_cast<std::byte>(low | high << 4);
    }
  }
}

}  // namespace

absl::Status transcode_awq(const RecipeBytes& in, const TranscodeJob& job) {
  parallel_rows(job.rows, kTile, job.num_threads, [&](Range rows) {
    for (int n = rows.begin; n < rows.end; n += kTile) {
      const Range tile = {n, std::min(rows.end, n + kTile)};
      for (int k = job.columns.begin; k < job.columns.end; k += kTranscodedBlock) {
        write_blocks(in, tile, k, job);
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace quire
