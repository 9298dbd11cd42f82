// GPTQ (arXiv 2210.17323): qweight [K*bits/32][N], each word neighbours along K, the first in the
// lowest bits; zeros packed alike along N, stored less one in the first version of the layout;
// value = (q - z) * scale. Columns must lie in the order of their groups: an activation order would
// need the inputs permuted. 4 bits become kQ4_Z; 8 bits become kQ8_0, whose zero is fixed.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "worker/loader/parallel.h"
#include "worker/loader/q4_block.h"
#include "worker/loader/transcode.h"

namespace quire {
namespace {

constexpr int kTile = 64;  // rows of N at a time
constexpr int kSymmetricZero = 128;
constexpr std::size_t kQ8BlockBytes = 34;

absl::Status check_order(const RecipeBytes& in, Range columns) {
  if (!in.recipe->has_order()) return absl::OkStatus();
  for (int k = columns.begin; k < columns.end; ++k) {
    const std::uint32_t group = in.order.word(0, static_cast<std::size_t>(k));
    if (group == static_cast<std::uint32_t>(k / in.recipe->group_size)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "its g_idx puts column ", k, " into group ", group, " of ", in.recipe->group_size,
        " columns: weights in activation order (desc_act) do not run."));
  }
  return absl::OkStatus();
}

int zero_of(const RecipeBytes& in, std::size_t group, int n) {
  const int bits = in.recipe->bits;
  const int per_word = 32 / bits;
  const std::uint32_t word = in.zeros.word(group, static_cast<std::size_t>(n / per_word));
  const std::uint32_t mask = (1u << bits) - 1;
  return static_cast<int>(word >> (bits * (n % per_word)) & mask) + in.recipe->zero_bias;
}

absl::Status check_zeros(const RecipeBytes& in, const TranscodeJob& job) {
  const int size = in.recipe->group_size;
  for (int g = job.columns.begin / size; g <= (job.columns.end - 1) / size; ++g) {
    for (int n = job.rows.begin; n < job.rows.end; ++n) {
      const int zero = zero_of(in, static_cast<std::size_t>(g), n);
      if (zero == kSymmetricZero) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("row ", n, " has the zero point ", zero,
                       "; gptq weights of 8 bits run with 128 only (sym: true)."));
    }
  }
  return absl::OkStatus();
}

void write_block4(const RecipeBytes& in, std::size_t group, int n, int k, std::byte* block) {
  const auto row = static_cast<std::size_t>(n);
  const auto first = static_cast<std::size_t>(k / 8);
  const std::uint32_t words[4] = {in.values.word(first, row), in.values.word(first + 1, row),
                                  in.values.word(first + 2, row), in.values.word(first + 3, row)};
  write_q4_words(words,
                 write_q4_header(in.scales.number(group, row), zero_of(in, group, n), block));
}

void write_block8(const RecipeBytes& in, std::size_t group, int n, int k, std::byte* block) {
  const auto row = static_cast<std::size_t>(n);
  store_half(block, in.scales.number(group, row));
  for (int i = 0; i < kTranscodedBlock; ++i) {
    const std::uint32_t word = in.values.word(static_cast<std::size_t>((k + i) / 4), row);
    const int number = static_cast<int>(word >> (8 * (i % 4)) & 255u) - kSymmetricZero;
    block[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(number));
  }
}

}  // namespace

absl::Status transcode_gptq(const RecipeBytes& in, const TranscodeJob& job) {
  absl::Status status = check_order(in, job.columns);
  const bool wide = in.recipe->bits == 8;
  if (status.ok() && wide) status = check_zeros(in, job);
  if (!status.ok()) return status;
  const std::size_t block_bytes = wide ? kQ8BlockBytes : kQ4BlockBytes;
  const auto write_tile = [&](Range rows, int k) {
    const auto group = static_cast<std::size_t>(k / in.recipe->group_size);
    const auto block = static_cast<std::size_t>((k - job.columns.begin) / kTranscodedBlock);
    std::byte* out = job.out + block * block_bytes;
    for (int n = rows.begin; n < rows.end; ++n) {
      std::byte* to = out + static_cast<std::size_t>(n - job.rows.begin) * job.row_stride;
      wide ? write_block8(in, group, n, k, to) : write_block4(in, group, n, k, to);
    }
  };
  parallel_rows(job.rows, kTile, job.num_threads, [&](Range rows) {
    for (int n = rows.begin; n < rows.end; n += kTile) {
      for (int k = job.columns.begin; k < job.columns.end; k += kTranscodedBlock) {
        write_tile({n, std::min(rows.end, n + kTile)}, k);
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace quire
