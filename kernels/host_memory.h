// 64-byte aligned, zeroed memory of a device that computes on the host. Whatever its owner did not
// free goes with it. Pieces from 64 KB to 2 MB, such as the matrices of a small model, lie side by
// side in regions of huge pages: reading them page by page of 4 KB costs a fifth of the bandwidth.
// Larger ones are mapped alone and ask for huge pages too; smaller ones share nothing. Untouched
// pages cost nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"

namespace quire {

// Of the system; the second where it grants them.
inline constexpr std::size_t kHostPage = 4096;
inline constexpr std::size_t kHostHugePage = std::size_t{2} << 20;

class HostMemory {
 public:
  HostMemory() = default;
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  // Zero bytes give a valid pointer too. ResourceExhausted names `what` and the bytes.
  absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what);
  void free(void* memory);  // null is allowed

 private:
  // Freed as a whole when nothing in it lives. The last one made is where the next piece goes.
  struct Region {
    std::byte* begin = nullptr;
    std::size_t used = 0;
    int live = 0;
  };

  void* allocate_in_region(std::size_t bytes);  // null: no memory
  void free_in_region(void* memory);

  std::mutex mutex_;
  std::unordered_map<void*, std::size_t> pieces_;  // address -> mapped bytes; 0: in a region
  std::vector<Region> regions_;
};

// Memory of the host that can be had without swapping; 0 where the system does not tell.
std::int64_t free_host_bytes();

}  // namespace quire
