#include "kernels/cuda/attention/table.h"

#include <algorithm>

namespace quire::cuda {
namespace {

struct Entry {
  DType dtype;
  int head_dim;  // 0: any
  AttentionVariant (*variant)(int head_dim);
};

template <AttentionVariant (*variant)()>
AttentionVariant of_one_size(int) {
  return variant();
}

// In order of preference.
constexpr Entry kEntries[] = {
    {DType::kBf16, 64, of_one_size<mma_bf16_64>},
    {DType::kBf16, 80, of_one_size<mma_bf16_80>},
    {DType::kBf16, 96, of_one_size<mma_bf16_96>},
    {DType::kBf16, 128, of_one_size<mma_bf16_128>},
    {DType::kBf16, 256, of_one_size<mma_bf16_256>},
    {DType::kBf16, 256, of_one_size<mma_bf16_256_small>},
    {DType::kF16, 64, of_one_size<mma_f16_64>},
    {DType::kF16, 80, of_one_size<mma_f16_80>},
    {DType::kF16, 96, of_one_size<mma_f16_96>},
    {DType::kF16, 128, of_one_size<mma_f16_128>},
    {DType::kF16, 256, of_one_size<mma_f16_256>},
    {DType::kF16, 256, of_one_size<mma_f16_256_small>},
    {DType::kF8E4M3, 64, of_one_size<mma_f8_64>},
    {DType::kF8E4M3, 80, of_one_size<mma_f8_80>},
    {DType::kF8E4M3, 96, of_one_size<mma_f8_96>},
    {DType::kF8E4M3, 128, of_one_size<mma_f8_128>},
    {DType::kF8E4M3, 256, of_one_size<mma_f8_256>},
    {DType::kF8E4M3, 256, of_one_size<mma_f8_256_small>},
    {DType::kBf16, 0, simt_bf16},
    {DType::kF16, 0, simt_f16},
    {DType::kF32, 0, simt_f32},
    {DType::kF8E4M3, 0, simt_f8},
};

std::string describe(const char* name, const AttentionLaunch& launch) {
  return std::string(name) + " " + std::to_string(launch.rows) + " rows x " +
         std::to_string(launch.threads) + " threads, " +
         std::to_string((launch.shared_bytes + 1023) / 1024) + " KiB";
}

}  // namespace

std::string describe(const AttentionVariant& variant) {
  const std::string size = variant.head_dim == 0 ? "any" : std::to_string(variant.head_dim);
  return std::string("attention ") + variant.arithmetic + " " + name_of(variant.dtype) +
         ", heads of " + size + ": " + describe("decode", variant.decode) + "; " +
         describe("prefill", variant.prefill) + "; " + describe("shared", variant.shared);
}

AttentionVariant choose_attention(DType dtype, int head_dim, int shared_bytes_per_block) {
  for (const Entry& entry : kEntries) {
    if (entry.dtype != dtype || (entry.head_dim != 0 && entry.head_dim != head_dim)) continue;
    const AttentionVariant variant = entry.variant(head_dim);
    const int bytes = std::max(
        {variant.decode.shared_bytes, variant.prefill.shared_bytes, variant.shared.shared_bytes});
    if (bytes <= shared_bytes_per_block) return variant;
  }
  return {};
}

}  // namespace quire::cuda
