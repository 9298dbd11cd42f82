// A host device dressed as one whose memory ranks do not share: it takes part in groups by a
// collective, as a GPU does, and computes as the device it wraps. The collective's calls are run in
// the order of the device's list, and its errors come out of wait().
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace quire::test {

// What such a device exchanges with: every call returns when it is done.
class BlockingCollective {
 public:
  virtual ~BlockingCollective() = default;
  virtual std::string description() const = 0;
  virtual absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) = 0;
  virtual absl::Status all_gather(const void* in, void* out, std::size_t bytes) = 0;
  virtual absl::Status broadcast(void* data, std::size_t bytes, int root) = 0;
  virtual const void* peer(const void* mine, int rank) const = 0;
  virtual absl::Status meet() = 0;
  virtual void abort() = 0;
};

struct CollectiveMaker {
  std::string kind;
  std::function<absl::StatusOr<std::string>()> make_id;
  std::function<absl::StatusOr<std::unique_ptr<BlockingCollective>>(const CollectiveOptions&)> open;
};

// Among the threads of this process; kind "threads". `in_place`: threads read each other's memory.
CollectiveMaker among_threads(bool in_place = false);

std::unique_ptr<Device> with_collective(std::unique_ptr<Device> inner, CollectiveMaker maker);

}  // namespace quire::test
