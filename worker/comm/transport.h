// How the parts of one exchange reach every rank of this host. Exchanges are numbered from 1; every
// rank writes its part of exchange k into half k % 2, so a half is written again only when everyone
// has arrived at the exchange in between, that is, has finished reading it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/comm/comm.h"

namespace quire {

class Transport {
 public:
  virtual ~Transport() = default;
  virtual const char* name() const = 0;
  // The part of `rank` in exchange `k` when every rank contributes `stride` bytes.
  virtual std::byte* part(std::uint64_t k, int rank, std::size_t stride) = 0;
  // Publishes this rank's part of exchange `k` and waits for all others'. Called in order of k.
  virtual absl::Status exchange(std::uint64_t k, std::size_t stride) = 0;
  virtual void abort() = 0;
};

std::unique_ptr<Transport> make_solo_transport(std::size_t part_bytes);
absl::StatusOr<std::unique_ptr<Transport>> open_shm_transport(const CommOptions& options);

}  // namespace quire
