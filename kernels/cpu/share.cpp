#include "kernels/cpu/share.h"

#include <cstdint>

namespace quire::cpu {
namespace {

constexpr int kRowsPerThread = 12;

}  // namespace

Range share_of(int n, int thread, int num_threads) {
  const auto cut = [&](int i) {
    return static_cast<int>(static_cast<std::int64_t>(n) * i / num_threads);
  };
  return {cut(thread), cut(thread + 1)};
}

bool divides_rows(int rows, int num_threads) {
  return rows >= kRowsPerThread * num_threads;
}

}  // namespace quire::cpu
