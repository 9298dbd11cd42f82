// The packed layout of a weight, the same for all ISAs but for the sums behind it (below). 16
// output rows make a panel; within it the leaves of the SumPlan follow each other, cut into units
// of 1, 2 or 32 k (zero-padded at a leaf's end). First come the values of all units, interleaved so
// that one 64-byte line holds 16 rows x 4 k-bytes (block formats), x 2 bf16 or x 1 float (f16: 32
// bytes, x 1); then the block headers, f16 d[16] (q4_1: and f16 m[16]) per unit. A q4 line holds k
// 4j..4j+3 in the low and k 16+4j.. in the high nibbles; q8_0 bytes are stored + 128, as the u8
// side of a u8 x s8 dot product. Panels are 64-byte aligned and N is padded to whole panels with
// zeros.
//
// Behind the panels of 4 bits, for AVX-512, are the sums that products by pairs (linear_pairs.h)
// take off: 16 int16 per panel and unit, of what all pairs (x1, x2) of a row add that is no product
// with an activation.
#pragma once

#include <cstddef>
#include <iterator>

#include "common/format.h"
#include "kernels/cpu/activation.h"

namespace quire::cpu {

inline constexpr int kPanelRows = 16;

struct PanelUnit {
  int columns;       // k per unit
  int value_bytes;   // of 16 rows
  int header_bytes;  // of 16 rows
};

// Row order is that of Format, of which the first have kernels here.
inline constexpr PanelUnit kPanelUnits[] = {
    {1, 64, 0}, {1, 32, 0}, {2, 64, 0}, {32, 512, 32}, {32, 256, 32}, {32, 256, 64},
};

// Pairs are of the low and the high nibble of a byte, in the first lines of a unit; the last is
// multiplied as it is (linear_pairs.h).
inline constexpr int kPairLines = 3;
inline constexpr int kPairSumBytes = 32;  // of 16 rows
// What is added to the second activation of a pair, which makes it unsigned, and to the first, to
// which 15 more can be added then.
inline constexpr int kPairOffset = -kSmallestQ8;
inline constexpr int kPairOtherOffset = 127 - 15 - kLargestQ8;

constexpr bool is_nibbles(Format format) {
  return format == Format::kQ4_0 || format == Format::kQ4_1;
}

constexpr bool has_panels(Format format) {
  return static_cast<std::size_t>(format) < std::size(kPanelUnits);
}

constexpr const PanelUnit& panel_unit(Format format) {
  return kPanelUnits[static_cast<std::size_t>(format)];
}

// The tiles a kernel's registers hold, so that there are enough independent sums: `one` panels side
// by side for a single token; up to few.tokens tokens, few.panels panels; beyond, at most
// many.panels x many.tokens.
struct TileSize {
  int panels;
  int tokens;
};
struct TileShape {
  int one;
  TileSize few;
  TileSize many;
};

}  // namespace quire::cpu
