#include "worker/comm/mpi_bridge.h"

#include <mpi.h>
#include <sched.h>

#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/clock.h"

namespace quire {

struct MpiBridge::Impl {
  MPI_Comm leaders = MPI_COMM_NULL;
  std::vector<int> first;  // [host] first rank
  std::vector<int> count;  // [host] ranks
  int host = 0;            // this one's index
};

MpiBridge::MpiBridge() : impl_(std::make_unique<Impl>()) {}
MpiBridge::~MpiBridge() = default;  // MPI_Finalize frees the communicator; a dead group just exits

absl::StatusOr<std::unique_ptr<MpiBridge>> MpiBridge::open(int first_local_rank,
                                                           int num_local_ranks, int world) {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  std::vector<int> first_of(static_cast<std::size_t>(world));
  MPI_Allgather(&first_local_rank, 1, MPI_INT, first_of.data(), 1, MPI_INT, MPI_COMM_WORLD);
  std::unique_ptr<MpiBridge> bridge(new MpiBridge());
  Impl& impl = *bridge->impl_;
  for (int r = 0; r < world; ++r) {
    if (first_of[static_cast<std::size_t>(r)] == r) {
      impl.first.push_back(r);
      impl.count.push_back(0);
    }
    if (impl.first.empty() || first_of[static_cast<std::size_t>(r)] != impl.first.back()) {
      return absl::InvalidArgumentError(absl::StrCat("rank ", r, " is not on the host of rank ",
                                                     r - 1,
                                                     " although a later rank is; ranks of one host "
                                                     "must be contiguous (mpirun --map-by slot)"));
    }
    ++impl.count.back();
    if (first_of[static_cast<std::size_t>(r)] == first_local_rank) {
      impl.host = static_cast<int>(impl.first.size()) - 1;
    }
  }
  bridge->num_hosts_ = static_cast<int>(impl.first.size());
  const bool leader = rank == first_local_rank;
  MPI_Comm_split(MPI_COMM_WORLD, leader ? 0 : MPI_UNDEFINED, rank, &impl.leaders);
  if (impl.leaders != MPI_COMM_NULL) MPI_Comm_set_errhandler(impl.leaders, MPI_ERRORS_RETURN);
  if (impl.count[static_cast<std::size_t>(impl.host)] != num_local_ranks) {
    return absl::InvalidArgumentError("the ranks of this host disagree about how many they are");
  }
  return bridge;
}

absl::Status MpiBridge::exchange(std::byte* half, std::size_t stride, int deadline_ms,
                                 const std::atomic<std::uint64_t>& abort_word) {
  const Impl& impl = *impl_;
  std::vector<int> counts, offsets;
  for (std::size_t h = 0; h < impl.first.size(); ++h) {
    const std::size_t end = static_cast<std::size_t>(impl.first[h] + impl.count[h]) * stride;
    if (end > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
      return absl::ResourceExhaustedError(
          "an exchange between hosts exceeds 2 GiB; lower --max-num-batched-tokens");
    }
    counts.push_back(static_cast<int>(static_cast<std::size_t>(impl.count[h]) * stride));
    offsets.push_back(static_cast<int>(static_cast<std::size_t>(impl.first[h]) * stride));
  }
  MPI_Request request = MPI_REQUEST_NULL;
  int rc = MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_BYTE, half, counts.data(), offsets.data(), MPI_BYTE,
                           impl.leaders, &request);
  const absl::Time deadline = steady_now() + absl::Milliseconds(deadline_ms);
  int done = 0;
  for (int poll = 1; rc == MPI_SUCCESS && !done; ++poll) {
    rc = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (abort_word.load(std::memory_order_relaxed) != 0) {
      return absl::AbortedError("the exchange between hosts was given up: the epoch ended");
    }
    if (poll % 256 == 0 && steady_now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "the ranks of another host did not arrive at an exchange within ", deadline_ms, " ms"));
    }
    if (!done) sched_yield();
  }
  if (rc != MPI_SUCCESS) return absl::UnavailableError("MPI failed in an exchange between hosts");
  return absl::OkStatus();
}

}  // namespace quire
