// Slots in memory are copied to and from as they lie. A file's go through a few staged blocks: the
// device copies them, and a host task in the same stream writes or reads them.
#include "worker/kv/host_store.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/hash.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr std::int64_t kMaxBlocks = 1 << 30;  // as plans can name
constexpr int kMaxStaged = 8;

}  // namespace

HostStore::HostStore(Device& device, std::size_t block_bytes, int num_blocks)
    : device_(device), block_bytes_(block_bytes), num_blocks_(num_blocks) {}

absl::StatusOr<std::unique_ptr<HostStore>> HostStore::open(const HostStoreOptions& options,
                                                           std::size_t block_bytes,
                                                           Device& device) {
  const std::int64_t blocks =
      std::min(options.bytes / static_cast<std::int64_t>(block_bytes), kMaxBlocks);
  if (blocks < 1) {
    return absl::OutOfRangeError(absl::StrCat("--kv-offload-bytes is ", options.bytes,
                                              ", but a single KV block has ", block_bytes,
                                              "; ask for more, or for 0"));
  }
  auto store =
      std::unique_ptr<HostStore>(new HostStore(device, block_bytes, static_cast<int>(blocks)));
  QUIRE_RETURN_IF_ERROR(options.folder.empty() ? store->open_memory(options)
                                               : store->open_file(options));
  store->holds_.assign(static_cast<std::size_t>(blocks), false);
  return store;
}

absl::Status HostStore::open_memory(const HostStoreOptions& options) {
  const std::size_t bytes = static_cast<std::size_t>(num_blocks_) * block_bytes_;
  if (options.free_bytes != 0 && static_cast<std::int64_t>(bytes) > options.free_bytes) {
    return absl::OutOfRangeError(absl::StrCat(
        "--kv-offload-bytes asks for ", bytes, " bytes of memory on every rank, and ",
        std::max<std::int64_t>(options.free_bytes, 0),
        " are free for each beside its KV cache; ask for less, or give a --kv-offload-path"));
  }
  QUIRE_ASSIGN_OR_RETURN(memory_,
                         DeviceBuffer::allocate_host(device_, bytes, "the KV offload store"));
  return absl::OkStatus();
}

absl::Status HostStore::open_file(const HostStoreOptions& options) {
  const std::string digested =
      absl::StrCat(options.layout, " rank ", options.rank, " of ", options.world);
  const BlockFileLayout layout{options.model_hash, hash64(0, digested), block_bytes_, num_blocks_};
  QUIRE_ASSIGN_OR_RETURN(
      file_, BlockFile::open(absl::StrCat(options.folder, "/", block_file_name(options)), layout));
  staged_ = std::min(num_blocks_, kMaxStaged);
  QUIRE_ASSIGN_OR_RETURN(
      memory_, DeviceBuffer::allocate_host(
                   device_, static_cast<std::size_t>(staged_) * block_bytes_, "staged KV blocks"));
  return absl::OkStatus();
}

std::string block_file_name(const HostStoreOptions& options) {
  return absl::StrFormat("kv-%016x-%d-of-%d.blocks", options.model_hash, options.rank,
                         options.world);
}

std::string HostStore::description() const {
  const double megabytes =
      static_cast<double>(num_blocks_) * static_cast<double>(block_bytes_) / 1e6;
  return absl::StrFormat("%d blocks, %.0f MB, %s", num_blocks_, megabytes,
                         file_ != nullptr ? file_->path() : "in memory");
}

absl::Status HostStore::begin_epoch(int num_blocks, bool keep) {
  QUIRE_CHECK(num_blocks >= 0 && num_blocks <= num_blocks_);
  epoch_blocks_ = num_blocks;
  keep = keep && saved() != 0;
  for (int i = 0; i < num_blocks_; ++i) {
    holds_[static_cast<std::size_t>(i)] = keep && file_->holds(i);
  }
  if (file_ == nullptr) return absl::OkStatus();
  if (!keep) file_->clear();
  return file_->unseal();
}

absl::Status HostStore::check(const char* list, const BlockSwap& swap, const KvArena& arena) const {
  if (swap.block < 0 || swap.block >= arena.num_blocks()) {
    return absl::InvalidArgumentError(absl::StrCat("`", list, "` names block ", swap.block,
                                                   ", outside [0, ", arena.num_blocks() - 1, "]"));
  }
  if (swap.host < 0 || swap.host >= epoch_blocks_) {
    return absl::InvalidArgumentError(absl::StrCat("`", list, "` names host block ", swap.host,
                                                   ", but the epoch has ", epoch_blocks_));
  }
  return absl::OkStatus();
}

absl::Status HostStore::enqueue(const std::vector<BlockSwap>& saves,
                                const std::vector<BlockSwap>& loads, const KvArena& arena) {
  for (const BlockSwap& save : saves) {
    QUIRE_RETURN_IF_ERROR(check("saves", save, arena));
    holds_[static_cast<std::size_t>(save.host)] = true;
  }
  for (const BlockSwap& load : loads) {
    QUIRE_RETURN_IF_ERROR(check("loads", load, arena));
    if (holds_[static_cast<std::size_t>(load.host)]) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("`loads` names host block ", load.host, ", in which nothing was saved"));
  }
  if (file_ != nullptr) {
    enqueue_through_staging(saves, /*save=*/true, arena);
    enqueue_through_staging(loads, /*save=*/false, arena);
    return absl::OkStatus();
  }
  for (const BlockSwap& save : saves) arena.swap_out(device_, save.block, at(save.host));
  for (const BlockSwap& load : loads) arena.swap_in(device_, at(load.host), load.block);
  return absl::OkStatus();
}

// Stream order alone keeps one batch from the staged blocks of the one before.
void HostStore::enqueue_through_staging(const std::vector<BlockSwap>& swaps, bool save,
                                        const KvArena& arena) {
  for (std::size_t first = 0; first < swaps.size(); first += static_cast<std::size_t>(staged_)) {
    const std::size_t count = std::min(swaps.size() - first, static_cast<std::size_t>(staged_));
    const std::vector<BlockSwap> batch(swaps.begin() + static_cast<std::ptrdiff_t>(first),
                                       swaps.begin() + static_cast<std::ptrdiff_t>(first + count));
    const auto transfer = [this, batch, save]() -> absl::Status {
      for (int i = 0; i < static_cast<int>(batch.size()); ++i) {
        const int slot = batch[static_cast<std::size_t>(i)].host;
        QUIRE_RETURN_IF_ERROR(save ? file_->write(slot, at(i)) : file_->read(slot, at(i)));
      }
      return absl::OkStatus();
    };
    if (!save) device_.host_task(transfer);
    for (int i = 0; i < static_cast<int>(count); ++i) {
      const BlockId block = batch[static_cast<std::size_t>(i)].block;
      if (save) {
        arena.swap_out(device_, block, at(i));
      } else {
        arena.swap_in(device_, at(i), block);
      }
    }
    if (save) device_.host_task(transfer);
  }
}

absl::Status HostStore::seal(std::uint64_t id) {
  return file_ == nullptr || id == 0 ? absl::OkStatus() : file_->seal(id);
}

}  // namespace quire
