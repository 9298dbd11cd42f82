// compressed-tensors, pack-quantized: weight_packed [N][K/8], each word eight neighbours along K,
// the first in the lowest nibble, stored as q + 8; weight_scale [N][G]; value = q * scale.
#include "worker/loader/parallel.h"
#include "worker/loader/q4_block.h"
#include "worker/loader/transcode.h"

namespace quire {
namespace {

constexpr int kZero = 8;

void write_row(const RecipeBytes& in, int n, const TranscodeJob& job) {
  const auto row = static_cast<std::size_t>(n);
  std::byte* block = job.out + static_cast<std::size_t>(n - job.rows.begin) * job.row_stride;
  for (int k = job.columns.begin; k < job.columns.end; k += kTranscodedBlock) {
    const auto first = static_cast<std::size_t>(k / 8);
    const std::uint32_t words[4] = {in.values.word(row, first), in.values.word(row, first + 1),
                                    in.values.word(row, first + 2), in.values.word(row, first + 3)};
    const auto group = static_cast<std::size_t>(k / in.recipe->group_size);
    write_q4_words(words, write_q4_header(in.scales.number(row, group), kZero, block));
    block += kQ4BlockBytes;
  }
}

}  // namespace

absl::Status transcode_packed(const RecipeBytes& in, const TranscodeJob& job) {
  parallel_rows(job.rows, 1, job.num_threads, [&](Range rows) {
    for (int n = rows.begin; n < rows.end; ++n) write_row(in, n, job);
  });
  return absl::OkStatus();
}

}  // namespace quire
