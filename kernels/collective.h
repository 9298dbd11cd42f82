// How ranks exchange device memory that the host cannot reach (NCCL, peer access). Opened by a
// device once per epoch; worker/comm builds its Comm on it. Every call enqueues on the device's
// stream and is made by all ranks in the same order with the same sizes. A peer that does not
// arrive by the deadline, or that died, ends the step with an error from Device::wait(); nobody
// hangs. After an error every call does nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace quire {

struct CollectiveOptions {
  int rank = 0;
  int world = 1;
  std::string id;           // what rank 0's Device::make_collective_id() gave
  int deadline_ms = 60000;  // for a peer to arrive
};

class Collective {
 public:
  virtual ~Collective() = default;
  virtual std::string description() const = 0;  // e.g. "nccl 2.28.9"

  // Device memory, zeroed, that exchanges reach at full speed; freed with the collective.
  // Collective itself: all ranks allocate the same sizes in the same order.
  virtual absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) = 0;
  // out: [world][bytes]; piece r is what rank r gave as `in`, which may be its own piece of `out`.
  virtual void all_gather(const void* in, void* out, std::size_t bytes) = 0;
  // `bytes` of `data` on rank `root` to everyone's `data`.
  virtual void broadcast(void* data, std::size_t bytes, int root) = 0;

  // Where peers' memory can be read in place (peer access): what `rank` has where this rank has
  // `mine`, in memory from allocate(). Null, for all ranks alike, where pieces must be gathered.
  virtual const void* peer(const void* mine, int rank) const = 0;
  // A barrier, where peer() is not null: what any rank enqueues after it sees what every rank
  // enqueued before its own.
  virtual void meet() = 0;

  // Makes waiting peers give up at once. Any thread.
  virtual void abort() = 0;
};

}  // namespace quire
