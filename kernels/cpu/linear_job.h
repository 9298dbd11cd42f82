// One thread's share of a matrix product in plain pointers. The kernels see nothing else, so that
// files compiled for one instruction set emit no inline function another file could pick up.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/format.h"

namespace quire::cpu {

// Deepest stack of partial sums a SumPlan may need: two nested binary trees over heads.
inline constexpr int kMaxSumDepth = 40;

// kQ8 activations are packed by each thread as its tiles read them: so many bytes at most for each
// token and block of 32 k, in a room on its stack that takes 96 tokens of 4,096 columns.
inline constexpr std::size_t kPackedBlockBytes = 44;
inline constexpr std::size_t kPackedTokensBytes = std::size_t{528} << 10;
inline constexpr int kMaxPackedColumns =
    static_cast<int>(kPackedTokensBytes / kPackedBlockBytes) * 32;

// A leaf of the SumPlan: k in [begin, end), then `merges` additions on the stack of sums.
struct LeafStep {
  int begin = 0;
  int end = 0;
  int merges = 0;
};

// Memory that is read once the product has ended, fetched while it computes: a line at some of a
// tile's steps, so that none is dropped for those before it.
struct AheadLines {
  const std::byte* const* piece = nullptr;  // from here on
  const std::byte* const* end = nullptr;
  std::size_t piece_bytes = 0;
  std::size_t next = 0;    // byte of *piece
  std::uint32_t rate = 0;  // lines a step, in kAheadUnits
  std::uint32_t due = 0;
};
inline constexpr std::uint32_t kAheadUnits = 1 << 16;

struct LinearJob {
  // weight, see panel.h
  const std::byte* panels = nullptr;
  std::size_t panel_bytes = 0;
  std::size_t header_offset = 0;
  std::size_t num_units = 0;  // of a panel
  int panel_begin = 0;        // this thread's panels
  int panel_end = 0;
  int rows = 0;                     // N
  const std::byte* next = nullptr;  // what this thread reads after them, to be fetched ahead
  std::size_t next_bytes = 0;
  AheadLines* ahead = nullptr;  // or null
  const LeafStep* leaves = nullptr;
  int num_leaves = 0;
  const std::byte* pair_sums = nullptr;  // see panel.h; of panel 0
  // activations, see activation.h; kQ8 has scales and sums behind the values of a token
  const std::byte* in = nullptr;
  std::size_t in_stride = 0;
  std::size_t in_scales = 0;
  std::size_t in_sums = 0;
  int num_blocks = 0;  // K / 32
  int tokens = 0;      // T
  // result
  const float* bias = nullptr;  // [N] or null
  float* out = nullptr;
  std::size_t out_stride = 0;
  std::size_t out_subtree_stride = 0;
};

// One function per instruction set and activation layout, each in a file of its own.
void linear_f32_avx512(Format format, const LinearJob& job);
void linear_q8_avx512(Format format, const LinearJob& job);
void linear_bf16_avx512(const LinearJob& job);
void linear_f32_avx2(Format format, const LinearJob& job);
void linear_q8_avx2(Format format, const LinearJob& job);

}  // namespace quire::cpu
