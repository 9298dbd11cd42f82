// Futexes on the low half of a shared word. Who sleeps says so first and looks again, who changes a
// word looks for sleepers afterwards: one of the two always sees the other.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <climits>
#include <ctime>

#include "worker/comm/shm_segment.h"

namespace quire {
namespace {

static_assert(std::endian::native == std::endian::little);
const std::uint32_t* low_half(const SharedWord& word) {
  return reinterpret_cast<const std::uint32_t*>(&word.value);
}

}  // namespace

void sleep_on(SegmentHeader& header, const SharedWord& word, std::uint64_t seen, int most_ms) {
  const timespec most = {most_ms / 1000, most_ms % 1000 * 1000000L};
  header.sleepers.value.fetch_add(1);
  // Returns at once if the word has another value.
  syscall(SYS_futex, low_half(word), FUTEX_WAIT, static_cast<std::uint32_t>(seen), &most, nullptr,
          0);
  header.sleepers.value.fetch_sub(1);
}

void wake_all(SegmentHeader& header, const SharedWord& word) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (header.sleepers.value.load(std::memory_order_relaxed) == 0) return;
  syscall(SYS_futex, low_half(word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace quire
