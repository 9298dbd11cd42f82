// 64-byte aligned, zeroed memory of a device that computes on the host. Whatever its owner did not
// free goes with it. Small pieces share nothing; large ones are mapped, so that untouched pages
// cost nothing, and ask for huge pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"

namespace quire {

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
  std::mutex mutex_;
  std::unordered_map<void*, std::size_t> pieces_;  // address -> mapped bytes
};

// Memory of the host that can be had without swapping; 0 where the system does not tell.
std::int64_t free_host_bytes();

}  // namespace quire
