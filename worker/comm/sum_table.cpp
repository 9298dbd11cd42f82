#include "worker/comm/sum_table.h"

#include "absl/strings/str_cat.h"

namespace quire {
namespace {

constexpr std::size_t kTwoShotBytes = std::size_t{256} << 10;

const char* name_of(SumWay way) {
  switch (way) {
    case SumWay::kOneShot:
      return "one-shot";
    case SumWay::kTwoShot:
      return "two-shot";
    case SumWay::kGathered:
      return "gathered";
  }
  return "";
}

}  // namespace

SumWay SumTable::way_for(std::size_t bytes) const {
  int i = 0;
  while (i + 1 < kSizes && bytes > bytes_of(i)) ++i;
  return ways[static_cast<std::size_t>(i)];
}

std::string SumTable::description() const {
  std::string text;
  for (int i = 0; i < kSizes; ++i) {
    const SumWay way = ways[static_cast<std::size_t>(i)];
    if (i > 0 && way == ways[static_cast<std::size_t>(i - 1)]) continue;
    if (i > 0) absl::StrAppend(&text, " to ", bytes_of(i - 1) >> 10, " KB, then ");
    absl::StrAppend(&text, name_of(way));
  }
  return text;
}

SumTable usual_sum_table(int world) {
  SumTable table;
  for (int i = 0; i < SumTable::kSizes; ++i) {
    const bool two_shot = world > 2 && SumTable::bytes_of(i) > kTwoShotBytes;
    table.ways[static_cast<std::size_t>(i)] = two_shot ? SumWay::kTwoShot : SumWay::kOneShot;
  }
  return table;
}

}  // namespace quire
