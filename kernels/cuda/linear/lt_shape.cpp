// The key of the table of algorithms; no library needed.
#include <bit>

#include "kernels/cuda/linear/lt_gemm.h"

namespace quire::cuda {
namespace {

constexpr std::size_t kMostAlignment = 256;

// The largest power of two, up to 256, that divides both.
std::uint32_t alignment_of(const void* pointer, std::size_t stride_bytes) {
  const std::size_t bits = reinterpret_cast<std::size_t>(pointer) | stride_bytes | kMostAlignment;
  return std::uint32_t{1} << std::countr_zero(bits);
}

}  // namespace

int lt_bucket(int tokens) {
  int bucket = 32;
  while (bucket < tokens) bucket *= 2;
  return bucket;
}

LtShape lt_shape(Format format, const LinearJob& job, int output) {
  const Columns range = job.outputs[output];
  const auto columns = static_cast<std::size_t>(job.columns);
  const auto begin = static_cast<std::size_t>(range.begin);
  const auto at = static_cast<std::size_t>(output);
  LtShape shape;
  shape.format = format;
  shape.bucket = lt_bucket(job.tokens);
  shape.rows = job.rows;
  shape.columns = range.end - range.begin;
  shape.weight_stride = job.columns;
  shape.out_stride = static_cast<std::int64_t>(job.out_stride);
  shape.has_bias = job.bias != nullptr;
  shape.weight_alignment = alignment_of(job.data + 2 * begin, 2 * columns);
  shape.input_alignment =
      alignment_of(static_cast<const std::byte*>(job.in) + 2 * begin, 2 * columns);
  shape.out_alignment = alignment_of(job.out + at * job.out_subtree_stride, 4 * job.out_stride);
  return shape;
}

}  // namespace quire::cuda
