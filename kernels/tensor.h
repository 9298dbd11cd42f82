// Buffers and the types in them. A backend allocates; everyone else passes pointers with shapes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quire {

// How KV bytes and activations are stored.
// K and V only, with a scale for each token and head (kv_scale.h): kF8E4M3, kI8.
enum class DType : std::uint8_t { kF32, kF16, kBf16, kF8E4M3, kI8 };
constexpr std::size_t size_of(DType type) {
  return type == DType::kF32 ? 4 : type == DType::kF16 || type == DType::kBf16 ? 2 : 1;
}
constexpr const char* name_of(DType type) {
  return type == DType::kF32    ? "float32"
         : type == DType::kF16  ? "float16"
         : type == DType::kBf16 ? "bfloat16"
         : type == DType::kI8   ? "int8"
                                : "fp8";
}

// The form in which a linear layer wants its input; the op before it writes that form.
enum class ActivationLayout : std::uint8_t {
  kF32,   // [T][K] float
  kBf16,  // [T][K] bfloat16
  kQ8,    // [T][K] int8, and per 32 values a float scale and the int32 sum of the int8s
};

// An input of linear layers: T rows of K values in `layout`. Only the backend that wrote `data`
// knows its exact bytes; sizes come from Ops::activation_bytes.
struct Activation {
  void* data = nullptr;
  ActivationLayout layout = ActivationLayout::kF32;
  int rows = 0;     // T
  int columns = 0;  // K
};

}  // namespace quire
