// K and V of this rank's heads, block by block: [num_blocks][L][block bytes]. A block is one piece,
// so that memory which is used for the first time comes page by page: layer by layer, a page of
// every layer would have to be found and cleared in the same step. Which block holds what is known
// to the coordinator alone.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/batch.h"
#include "kernels/ops.h"
#include "worker/device_buffer.h"

namespace quire {

// One KV group's storage on one rank.
struct KvShape {
  DType dtype = DType::kF32;
  int num_layers = 0;
  int num_kv_heads = 0;  // local
  int head_dim = 0;
  int block_size = 16;
};

// Bytes of one block over all layers.
std::size_t kv_bytes_per_block(const KvShape& shape, const Ops& ops);

class KvArena {
 public:
  // ResourceExhausted names the bytes.
  static absl::StatusOr<KvArena> create(const KvShape& shape, int num_blocks, Device& device);

  KvLayer layer(int l) const;
  KvBlocks blocks() const;
  // Enqueues copies of a block of all layers to and from host memory of kv_bytes_per_block().
  void swap_out(Device& device, BlockId block, void* host) const;
  void swap_in(Device& device, const void* host, BlockId block) const;
  // Block `last` is in use. Blocks come into use in the order of their ids: those behind the
  // highest so far are expected next.
  void reach(Device& device, BlockId last);
  int num_blocks() const { return num_blocks_; }

 private:
  void expect_rest(Device& device) const;  // what no block has reached
  std::size_t bytes_of_all_layers() const {
    return static_cast<std::size_t>(shape_.num_layers) * block_bytes_;
  }

  KvShape shape_;
  int num_blocks_ = 0;
  std::size_t block_bytes_ = 0;  // of one layer
  int num_reached_ = 0;          // blocks that have been in use, all below
  DeviceBuffer memory_;
};

}  // namespace quire
