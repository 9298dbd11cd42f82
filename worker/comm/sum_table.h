// In which way ranks that reach each other's memory put a sum together, by the bytes of a rank's
// part. All ways add in the same order: they give the same bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace quire {

enum class SumWay : std::uint8_t {
  kOneShot,   // every rank reads all parts where they are
  kTwoShot,   // each rank sums its share of the rows, then takes the others' sums
  kGathered,  // the parts are brought to every rank
};
inline constexpr int kSumWays = 3;

// Plain bytes: one rank measures, all use what it found.
struct SumTable {
  static constexpr int kSizes = 8;
  static constexpr std::size_t kSmallest = std::size_t{32} << 10;  // entry i: up to kSmallest << i

  std::array<SumWay, kSizes> ways = {};

  static constexpr std::size_t bytes_of(int i) { return kSmallest << i; }
  // The last entry is for all that is larger, too.
  SumWay way_for(std::size_t bytes) const;
  std::string description() const;  // e.g. "one-shot to 256 KB, then two-shot"
};

// What others have measured over NVLink: their limits for one shot lie between 256 KB and 512 KB.
SumTable usual_sum_table(int world);

}  // namespace quire
