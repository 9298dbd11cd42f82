// The way between hosts on CPUs: host leaders exchange their hosts' parts with MPI_Iallgatherv,
// polled with a deadline and an abort word (never MPI_SUM: its order is its own, and a blocking
// collective never returns when a peer dies).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace quire {

class MpiBridge {
 public:
  // Collective over MPI_COMM_WORLD: every rank calls it. Only leaders get a usable bridge.
  static absl::StatusOr<std::unique_ptr<MpiBridge>> open(int first_local_rank, int num_local_ranks,
                                                         int world);
  ~MpiBridge();

  int num_hosts() const { return num_hosts_; }
  // `half` holds `stride` bytes per rank; this host's are there, the others' are filled in.
  absl::Status exchange(std::byte* half, std::size_t stride, int deadline_ms,
                        const std::atomic<std::uint64_t>& abort_word);

 private:
  MpiBridge();
  struct Impl;
  std::unique_ptr<Impl> impl_;
  int num_hosts_ = 1;
};

}  // namespace quire
