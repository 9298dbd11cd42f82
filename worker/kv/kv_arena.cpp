// One allocation, sliced by block and layer.
#include "worker/kv/kv_arena.h"

namespace quire {

std::size_t kv_bytes_per_block(const KvShape& shape, const Ops& ops) {
  return static_cast<std::size_t>(shape.num_layers) *
         ops.kv_block_bytes(shape.dtype, shape.num_kv_heads, shape.head_dim, shape.block_size);
}

absl::StatusOr<KvArena> KvArena::create(const KvShape& shape, int num_blocks, Device& device) {
  KvArena arena;
  arena.shape_ = shape;
  arena.num_blocks_ = num_blocks;
  arena.block_bytes_ = device.ops().kv_block_bytes(shape.dtype, shape.num_kv_heads, shape.head_dim,
                                                   shape.block_size);
  const std::size_t bytes =
      kv_bytes_per_block(shape, device.ops()) * static_cast<std::size_t>(num_blocks);
  QUIRE_ASSIGN_OR_RETURN(arena.memory_, DeviceBuffer::allocate(device, bytes, "the KV cache"));
  arena.expect_rest(device);
  return arena;
}

void KvArena::reach(Device& device, BlockId last) {
  if (last < num_reached_) return;
  num_reached_ = last + 1;
  expect_rest(device);
}

void KvArena::expect_rest(Device& device) const {
  const auto left = static_cast<std::size_t>(num_blocks_ - num_reached_);
  device.expect_use(blocks().data + static_cast<std::size_t>(num_reached_) * bytes_of_all_layers(),
                    left * bytes_of_all_layers());
}

KvBlocks KvArena::blocks() const {
  KvBlocks blocks;
  blocks.data = static_cast<std::byte*>(memory_.data());
  blocks.block_bytes = bytes_of_all_layers();
  return blocks;
}

void KvArena::swap_out(Device& device, BlockId block, void* host) const {
  device.copy(host, blocks().data + static_cast<std::size_t>(block) * bytes_of_all_layers(),
              bytes_of_all_layers());
}

void KvArena::swap_in(Device& device, const void* host, BlockId block) const {
  device.copy(blocks().data + static_cast<std::size_t>(block) * bytes_of_all_layers(), host,
              bytes_of_all_layers());
}

KvLayer KvArena::layer(int l) const {
  KvLayer layer;
  layer.data = static_cast<std::byte*>(memory_.data()) + static_cast<std::size_t>(l) * block_bytes_;
  layer.block_bytes = bytes_of_all_layers();
  layer.dtype = shape_.dtype;
  layer.num_kv_heads = shape_.num_kv_heads;
  layer.head_dim = shape_.head_dim;
  layer.block_size = shape_.block_size;
  return layer;
}

}  // namespace quire
