// ldmatrix and mma.sync on the registers of 32 lanes. Products are exact in fp32 (int32 for s8) and
// are added to d in the order of k, one rounding each.
#include "tests/cuda_emulation/matrix.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "tests/cuda_emulation/shared_memory.h"

namespace quire::cuda_emulation {
namespace {

constexpr uint32_t kAllLanes = 0xffffffffu;

struct MatrixLoad {
  uint32_t* regs;
  const char* row;
  int count;
  bool transposed;

  static uint16_t element(const char* row, int column) {
    uint16_t value;
    std::memcpy(&value, row + 2 * column, sizeof(value));
    return value;
  }

  static void run(void* const* args, uint32_t) {
    const auto lane_at = [&](int lane) { return static_cast<MatrixLoad*>(args[lane]); };
    for (int lane = 0; lane < 32; ++lane) {
      MatrixLoad& mine = *lane_at(lane);
      const int group = lane / 4;
      const int pair = lane % 4 * 2;
      for (int m = 0; m < mine.count; ++m) {
        const auto row = [&](int r) { return lane_at(8 * m + r)->row; };
        const uint32_t low =
            mine.transposed ? element(row(pair), group) : element(row(group), pair);
        const uint32_t high =
            mine.transposed ? element(row(pair + 1), group) : element(row(group), pair + 1);
        mine.regs[m] = low | high << 16;
      }
    }
  }
};

float bf16_at(uint32_t word, int half) {
  const uint32_t bits = half == 0 ? word << 16 : word & 0xffff0000u;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float f16_at(uint32_t word, int half) {
  __half_raw raw;
  raw.x = static_cast<unsigned short>(word >> (16 * half));
  return __half2float(__half(raw));
}

int s8_at(uint32_t word, int byte) {
  return static_cast<int8_t>(word >> (8 * byte));
}

// One lane's registers of a product with `kPacked` elements a register.
template <typename Sum>
struct Product {
  Sum* d;
  const uint32_t* a;
  uint32_t b[2];
};

template <typename Sum, int kPacked, Sum (*decode)(uint32_t, int)>
void multiply(void* const* args, uint32_t) {
  constexpr int kDepth = 8 * kPacked;
  const auto lane_at = [&](int lane) { return static_cast<Product<Sum>*>(args[lane]); };
  Sum a[16][kDepth];
  Sum b[kDepth][8];
  Sum d[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Product<Sum>& regs = *lane_at(lane);
    const int group = lane / 4;
    const int pair = lane % 4;
    for (int i = 0; i < kPacked; ++i) {
      const int k = kPacked * pair + i;
      a[group][k] = decode(regs.a[0], i);
      a[group + 8][k] = decode(regs.a[1], i);
      a[group][k + kDepth / 2] = decode(regs.a[2], i);
      a[group + 8][k + kDepth / 2] = decode(regs.a[3], i);
      b[k][group] = decode(regs.b[0], i);
      b[k + kDepth / 2][group] = decode(regs.b[1], i);
    }
    for (int i = 0; i < 4; ++i) d[group + i / 2 * 8][2 * pair + i % 2] = regs.d[i];
  }
  for (int m = 0; m < 16; ++m) {
    for (int k = 0; k < kDepth; ++k) {
      for (int n = 0; n < 8; ++n) d[m][n] += a[m][k] * b[k][n];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) lane_at(lane)->d[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

void with_full_warp(void* record, WarpFunction function, const char* name) {
  if (current_lane->warp->existing != kAllLanes) die("calls %s in a warp of fewer lanes", name);
  warp_operation(kAllLanes, record, function, name);
}

}  // namespace

void load_matrices(uint32_t* regs, int count, bool transposed, const void* row) {
  // Lanes whose address the instruction does not read may give any.
  if (current_lane->index < 8 * count) {
    check_aligned(row, 16, "ldmatrix");
    if (!current_lane->block->shared->contains(row, 16)) {
      die("calls ldmatrix with address %p, outside shared memory", row);
    }
  }
  MatrixLoad record{regs, static_cast<const char*>(row), count, transposed};
  with_full_warp(&record, &MatrixLoad::run, "ldmatrix");
}

void mma_bf16(float* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  Product<float> record{d, a, {b0, b1}};
  with_full_warp(&record, &multiply<float, 2, bf16_at>, "mma_bf16");
}

void mma_f16(float* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  Product<float> record{d, a, {b0, b1}};
  with_full_warp(&record, &multiply<float, 2, f16_at>, "mma_f16");
}

void mma_s8(int32_t* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  Product<int32_t> record{d, a, {b0, b1}};
  with_full_warp(&record, &multiply<int32_t, 4, s8_at>, "mma_s8");
}

}  // namespace quire::cuda_emulation
