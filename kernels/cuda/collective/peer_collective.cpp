// Handles travel by the inner collective's exchange(); every decision is agreed by one more, so
// that all ranks go the same way.
#include "kernels/cuda/collective/peer_collective.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "kernels/cuda/status.h"

namespace quire::cuda {
namespace {

// An IPC handle names a whole block of the driver's; memory of this size begins one.
constexpr std::size_t kBlockBytes = std::size_t{2} << 20;

// What each rank tells the others about a piece of memory.
struct Offer {
  cudaIpcMemHandle_t handle;
  char host[40];  // the boot id of the system
  bool usable;
};

void read_boot_id(char (&id)[40]) {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  std::getline(file, text);
  std::memset(id, 0, sizeof id);
  std::memcpy(id, text.data(), std::min(text.size(), sizeof id - 1));
}

class PeerCollective final : public Collective {
 public:
  PeerCollective(std::unique_ptr<NcclCollective> inner, const CollectiveOptions& options,
                 cudaStream_t stream, bool share_memory)
      : inner_(std::move(inner)),
        watchdog_(inner_->watchdog()),
        stream_(stream),
        share_memory_(share_memory) {
    static_cast<void>(cudaGetDevice(&device_));
    meet_.rank = options.rank;
    meet_.world = options.world;
    meet_.abort_word = inner_->abort_word();
  }
  ~PeerCollective() override {
    {
      const WatchedWait wait(*watchdog_);
      cudaStreamSynchronize(stream_);
    }
    for (Region& region : regions_) close(region);
  }

  absl::Status open() {
    reached_ = meet_.world <= PeerMeet::kMaxRanks;
    QUIRE_RETURN_IF_ERROR(allocate(PeerMeet::kBytes, "the ranks' words").status());
    for (int r = 0; reached_ && r < meet_.world; ++r) {
      meet_.words[r] =
          reinterpret_cast<std::uint32_t*>(regions_[0].at[static_cast<std::size_t>(r)]);
    }
    return absl::OkStatus();
  }

  std::string description() const override {
    return absl::StrCat(inner_->description(), reached_ ? ", peers in place" : "");
  }

  absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) override {
    const std::size_t whole = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    QUIRE_ASSIGN_OR_RETURN(void* const memory, inner_->allocate(whole, what));
    if (reached_) QUIRE_RETURN_IF_ERROR(share(static_cast<std::byte*>(memory), whole));
    return memory;
  }
  void all_gather(const void* in, void* out, std::size_t bytes) override {
    inner_->all_gather(in, out, bytes);
  }
  void broadcast(void* data, std::size_t bytes, int root) override {
    inner_->broadcast(data, bytes, root);
  }
  const void* peer(const void* mine, int rank) const override {
    const auto* const address = static_cast<const std::byte*>(mine);
    for (const Region& region : regions_) {
      const std::byte* const own = region.at[static_cast<std::size_t>(meet_.rank)];
      if (!reached_ || address < own || address >= own + region.bytes) continue;
      return region.at[static_cast<std::size_t>(rank)] + (address - own);
    }
    return nullptr;
  }
  void meet() override {
    if (!watchdog_->status().ok()) return;
    static_cast<void>(cudaSetDevice(device_));
    const absl::Status status = to_status(peer_meet(stream_, meet_), "the ranks' barrier");
    if (!status.ok() && !is_capturing(stream_)) watchdog_->fail(status);
  }
  void abort() override { inner_->abort(); }

 private:
  struct Region {
    std::size_t bytes = 0;
    std::vector<std::byte*> at;  // by rank; null: not opened
  };

  // Opens everybody's piece, or nobody's: then reached_ is false from here on.
  absl::Status share(std::byte* own, std::size_t bytes) {
    Offer mine = {};
    mine.usable = share_memory_ && cudaIpcGetMemHandle(&mine.handle, own) == cudaSuccess;
    read_boot_id(mine.host);
    const auto as_text = [](const Offer& offer) {
      return std::string(reinterpret_cast<const char*>(&offer), sizeof offer);
    };
    QUIRE_ASSIGN_OR_RETURN(const std::vector<std::string> offers, inner_->exchange(as_text(mine)));
    Region region;
    region.bytes = bytes;
    bool all = true;
    for (int r = 0; r < meet_.world; ++r) {
      Offer offer;
      std::memcpy(&offer, offers[static_cast<std::size_t>(r)].data(), sizeof offer);
      void* memory = r == meet_.rank ? own : nullptr;
      if (r != meet_.rank && offer.usable && std::strcmp(offer.host, mine.host) == 0 &&
          cudaIpcOpenMemHandle(&memory, offer.handle, cudaIpcMemLazyEnablePeerAccess) !=
              cudaSuccess) {
        memory = nullptr;
      }
      all = all && memory != nullptr;
      region.at.push_back(static_cast<std::byte*>(memory));
    }
    static_cast<void>(cudaGetLastError());  // of a handle that could not be opened
    QUIRE_ASSIGN_OR_RETURN(const std::vector<std::string> votes, inner_->exchange(all ? "1" : "0"));
    reached_ = std::find(votes.begin(), votes.end(), "0") == votes.end();
    if (reached_) {
      regions_.push_back(std::move(region));
    } else {
      close(region);
      for (Region& other : regions_) close(other);
      regions_.clear();
    }
    return absl::OkStatus();
  }

  void close(Region& region) {
    for (int r = 0; r < meet_.world; ++r) {
      std::byte* const memory = region.at[static_cast<std::size_t>(r)];
      if (r != meet_.rank && memory != nullptr) cudaIpcCloseMemHandle(memory);
    }
  }

  const std::unique_ptr<NcclCollective> inner_;
  const std::shared_ptr<Watchdog> watchdog_;
  const cudaStream_t stream_;
  const bool share_memory_;
  int device_ = 0;
  PeerMeet meet_;
  bool reached_ = true;          // every rank by every rank
  std::vector<Region> regions_;  // the words first
};

}  // namespace

absl::StatusOr<OpenedCollective> open_collective(const NcclApi& api,
                                                 const CollectiveOptions& options,
                                                 cudaStream_t stream, bool share_memory) {
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<NcclCollective> inner, open_nccl(api, options, stream));
  OpenedCollective opened;
  opened.watchdog = inner->watchdog();
  auto peers = std::make_unique<PeerCollective>(std::move(inner), options, stream, share_memory);
  QUIRE_RETURN_IF_ERROR(peers->open());
  opened.collective = std::move(peers);
  return opened;
}

}  // namespace quire::cuda
