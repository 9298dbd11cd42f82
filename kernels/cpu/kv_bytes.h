// Where the parts of one head's K and V of 8 bits begin in a block, in bytes: K + 128 [Dk /
// 4][S][4], its scales [S], V [S / 4][Dp][4], its scales [S].
#pragma once

#include "kernels/cpu/vector_ops.h"

namespace quire::cpu {
namespace {  // a copy for each file: see README, "The CPU backend"

struct KvBytes {
  int key_scales, values, value_scales;
};
inline KvBytes kv_bytes(const KvHead& kv) {
  const int scales = static_cast<int>(sizeof(float)) * kv.block_size;
  const int key_scales = kv.key_dim * kv.block_size;
  const int values = key_scales + scales;
  return {key_scales, values, values + kv.padded_dim * kv.block_size};
}

}  // namespace
}  // namespace quire::cpu
