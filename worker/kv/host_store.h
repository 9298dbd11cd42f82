// Where KV blocks go that leave the arena and may come back: slots of one block of all layers each,
// in the host's memory (page-locked where the device wants that) or in a file. What lies in which
// slot is known to the coordinator alone.
//
// Invariant: a slot is loaded only after a save of this epoch, or where the epoch goes on with what
// an earlier life saved. Everything runs in the order of the device's stream, so a slot may be
// loaded, or saved over, by the very next plan.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/step.h"
#include "worker/device_buffer.h"
#include "worker/kv/block_file.h"
#include "worker/kv/kv_arena.h"

namespace quire {

struct HostStoreOptions {
  std::int64_t bytes = 0;       // at most so many
  std::string folder;           // of files; empty: memory
  std::int64_t free_bytes = 0;  // of memory, for this rank; 0: unknown
  // For a file: whose blocks they are.
  int rank = 0, world = 1;
  std::uint64_t model_hash = 0;
  std::string layout;  // what else their bytes depend on
};

class HostStore {
 public:
  // OutOfRange: no room for a single block, or less memory or disk than was asked for.
  static absl::StatusOr<std::unique_ptr<HostStore>> open(const HostStoreOptions& options,
                                                         std::size_t block_bytes, Device& device);

  int num_blocks() const { return num_blocks_; }
  // What an earlier life put down here, as its coordinator named it; 0: nothing.
  std::uint64_t saved() const { return file_ == nullptr ? 0 : file_->saved(); }
  std::string description() const;

  // Before an epoch's first plan. `keep`: its slots hold what saved() says; else nothing. From here
  // on a crash loses it.
  absl::Status begin_epoch(int num_blocks, bool keep);
  // Enqueues the saves, then the loads. InvalidArgument names an id out of range, or a slot that
  // holds nothing; the epoch has ended then.
  absl::Status enqueue(const std::vector<BlockSwap>& saves, const std::vector<BlockSwap>& loads,
                       const KvArena& arena);
  // With nothing enqueued: a later life finds the slots as they are now. Memory keeps nothing.
  absl::Status seal(std::uint64_t id);

 private:
  HostStore(Device& device, std::size_t block_bytes, int num_blocks);
  absl::Status open_memory(const HostStoreOptions& options);
  absl::Status open_file(const HostStoreOptions& options);
  absl::Status check(const char* list, const BlockSwap& swap, const KvArena& arena) const;
  void enqueue_through_staging(const std::vector<BlockSwap>& swaps, bool save,
                               const KvArena& arena);
  std::byte* at(int block) const {
    return static_cast<std::byte*>(memory_.data()) + static_cast<std::size_t>(block) * block_bytes_;
  }

  Device& device_;
  const std::size_t block_bytes_;
  const int num_blocks_;
  int epoch_blocks_ = 0;     // of them, that the coordinator uses
  std::vector<bool> holds_;  // [num_blocks]: once what is enqueued has run
  DeviceBuffer memory_;      // [num_blocks], or with a file [staged] on their way: host memory
  int staged_ = 0;
  std::unique_ptr<BlockFile> file_;
};

// Of the file in the store's folder.
std::string block_file_name(const HostStoreOptions& options);

}  // namespace quire
