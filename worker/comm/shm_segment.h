// One POSIX shared-memory segment of a host's ranks: control words and the two halves of the
// exchange buffer. The first local rank creates it; its name is removed as soon as all have mapped
// it, so a killed group leaves nothing behind in /dev/shm.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace quire {

inline constexpr int kMaxRanks = 64;

// A word that one rank writes and the others poll, alone on its cache line.
struct alignas(64) SharedWord {
  std::atomic<std::uint64_t> value;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

struct SegmentHeader {
  SharedWord magic;               // set last by the creator
  SharedWord attached;            // local ranks that have mapped the segment
  SharedWord abort;               // non-zero: give up waiting
  SharedWord sleepers;            // ranks that wait in the kernel; see wake_all
  SharedWord remote;              // the last exchange whose parts from other hosts have arrived
  SharedWord arrived[kMaxRanks];  // the last exchange whose part rank r has written
};

// Sleeps until the word's value may have changed from `seen`, at most `most_ms`.
void sleep_on(SegmentHeader& header, const SharedWord& word, std::uint64_t seen, int most_ms);
// Wakes whoever sleeps on the word, which has been changed; cheap where nobody does.
void wake_all(SegmentHeader& header, const SharedWord& word);

class ShmSegment {
 public:
  // `half_bytes` of each of the two halves. Waits for the creator and for all `num_local` ranks, at
  // most `deadline_ms`.
  static absl::StatusOr<ShmSegment> open(const std::string& name, bool create, int num_local,
                                         std::size_t half_bytes, int deadline_ms);
  ShmSegment(ShmSegment&& other) noexcept;
  ShmSegment& operator=(ShmSegment&& other) noexcept;
  ~ShmSegment();

  // The memory stays mapped for as long as the process lives.
  void keep_mapped() { memory_ = nullptr; }

  SegmentHeader& header() { return *static_cast<SegmentHeader*>(memory_); }
  std::byte* half(std::uint64_t k);

 private:
  ShmSegment(void* memory, std::size_t bytes, std::size_t half_bytes)
      : memory_(memory), bytes_(bytes), half_bytes_(half_bytes) {}

  void* memory_;
  std::size_t bytes_;
  std::size_t half_bytes_;
};

}  // namespace quire
