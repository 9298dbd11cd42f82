// Ranks of one host over shared memory; where there are other hosts, the first local rank fetches
// their parts over MPI into the same halves.
#include <sched.h>

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "worker/comm/mpi_bridge.h"
#include "worker/comm/shm_segment.h"
#include "worker/comm/transport.h"

namespace quire {
namespace {

// With a core for every rank, a short spin catches a peer that is about to arrive; without, the
// only thing that helps is to let it run. Yields do that, but come back milliseconds later where
// they hand the core to somebody else's work: after a while a rank sleeps, to be woken at once.
constexpr int kSpins = 200;
constexpr absl::Duration kYields = absl::Microseconds(200);
constexpr int kSleepMs = 20;  // until the next look at abort and deadline

class ShmTransport final : public Transport {
 public:
  ShmTransport(const CommOptions& options, ShmSegment segment, std::unique_ptr<MpiBridge> bridge)
      : options_(options),
        segment_(std::move(segment)),
        bridge_(std::move(bridge)),
        spins_(static_cast<int>(std::thread::hardware_concurrency()) >=
                       std::max(options.num_local_ranks, options.num_on_host)
                   ? kSpins
                   : 0) {}

  // MPI may still write into what an exchange that was given up named: the next epoch has its own
  // segment, and this one stays.
  ~ShmTransport() override {
    if (gave_up_) segment_.keep_mapped();
  }

  const char* name() const override { return bridge_ ? "shm + mpi" : "shm"; }

  std::byte* part(std::uint64_t k, int rank, std::size_t stride) override {
    return segment_.half(k) + static_cast<std::size_t>(rank) * stride;
  }

  absl::Status exchange(std::uint64_t k, std::size_t stride) override {
    SegmentHeader& header = segment_.header();
    header.arrived[options_.rank].value.store(k, std::memory_order_release);
    wake_all(header, header.arrived[options_.rank]);
    const int end = options_.first_local_rank + options_.num_local_ranks;
    for (int r = options_.first_local_rank; r < end; ++r) {
      if (absl::Status status = wait_for(header.arrived[r], k, r); !status.ok()) return status;
    }
    if (!bridge_) return absl::OkStatus();
    if (options_.rank != options_.first_local_rank) return wait_for(header.remote, k, -1);
    const absl::Status status =
        bridge_->exchange(segment_.half(k), stride, options_.deadline_ms, header.abort.value);
    if (!status.ok()) {
      gave_up_ = true;
      abort();
      return status;
    }
    header.remote.value.store(k, std::memory_order_release);
    wake_all(header, header.remote);
    return absl::OkStatus();
  }

  void abort() override { segment_.header().abort.value.store(1, std::memory_order_release); }

 private:
  // `rank` is who is waited for, -1 for the other hosts.
  absl::Status wait_for(const SharedWord& word, std::uint64_t k, int rank) {
    for (int i = 0; i < spins_; ++i) {
      if (word.value.load(std::memory_order_acquire) >= k) return absl::OkStatus();
      __builtin_ia32_pause();
    }
    SegmentHeader& header = segment_.header();
    const absl::Time begin = steady_now();
    for (;;) {
      const std::uint64_t seen = word.value.load(std::memory_order_acquire);
      if (seen >= k) return absl::OkStatus();
      if (header.abort.value.load(std::memory_order_relaxed) != 0) {
        return absl::AbortedError("an exchange was given up: the epoch ended");
      }
      const absl::Duration waited = steady_now() - begin;
      if (waited < kYields) {
        sched_yield();
      } else if (waited < absl::Milliseconds(options_.deadline_ms)) {
        sleep_on(header, word, seen, kSleepMs);
      } else {
        abort();
        const std::string who = rank >= 0 ? absl::StrCat("rank ", rank) : "another host";
        return absl::DeadlineExceededError(absl::StrCat(who, " did not arrive at exchange ", k,
                                                        " within ", options_.deadline_ms, " ms"));
      }
    }
  }

  CommOptions options_;
  ShmSegment segment_;
  bool gave_up_ = false;               // an exchange with other hosts
  std::unique_ptr<MpiBridge> bridge_;  // null when all ranks are on this host
  int spins_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> open_shm_transport(const CommOptions& options) {
  if (options.world > kMaxRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.world, " ranks were asked for; at most ", kMaxRanks, " are possible"));
  }
  std::unique_ptr<MpiBridge> bridge;
  if (options.num_local_ranks < options.world) {
    auto opened = MpiBridge::open(options.first_local_rank, options.num_local_ranks, options.world);
    if (!opened.ok()) return opened.status();
    bridge = *std::move(opened);
  }
  const std::size_t half =
      (options.part_bytes + 63) / 64 * 64 * static_cast<std::size_t>(options.world);
  auto segment = ShmSegment::open(
      absl::StrCat("/quire.", options.name, ".", options.first_local_rank),
      options.rank == options.first_local_rank, options.num_local_ranks, half, options.deadline_ms);
  if (!segment.ok()) return segment.status();
  return std::make_unique<ShmTransport>(options, *std::move(segment), std::move(bridge));
}

}  // namespace quire
