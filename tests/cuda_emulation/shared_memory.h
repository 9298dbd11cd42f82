// The shared memory of one resident block. Every static array and the dynamic bytes end at an
// inaccessible page (up to the rounding to 16 bytes), so that running over the end faults, and all
// hold NaN bytes when a block begins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/cuda_emulation/lane.h"

namespace quire::cuda_emulation {

class SharedMemory {
 public:
  ~SharedMemory();

  void begin_block(size_t dynamic_bytes);
  // After a block's end: dies where bytes between an array and its page were written.
  void end_block() const;

  void* dynamic() const { return dynamic_.at; }
  void* find(const SharedKey* key, size_t bytes);
  bool contains(const void* address, size_t bytes) const;
  // What the address lies behind, for the sentence of a fault; null where it is none of ours.
  const char* owner_of(const void* address) const;

 private:
  struct Region {
    const SharedKey* key = nullptr;
    char* base = nullptr;  // the mapping, its last page inaccessible
    size_t mapped = 0;
    char* at = nullptr;
    size_t bytes = 0;
    uint64_t block = 0;  // the block that used it last
  };
  static void place(Region& region, size_t bytes);
  static void check_slack(const Region& region);

  Region dynamic_;
  std::vector<Region> regions_;
  uint64_t block_ = 0;
};

}  // namespace quire::cuda_emulation
