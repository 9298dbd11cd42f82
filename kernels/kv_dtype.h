// What K and V are stored as where somebody says so: DeviceOptions::kv_dtype.
#pragma once

#include <optional>
#include <string>

#include "kernels/tensor.h"

namespace quire {

// Null: the backend chooses ("auto"), or there is no such type (open_device() refuses it).
inline std::optional<DType> kv_dtype_named(const std::string& name) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBf16, DType::kF8E4M3, DType::kI8}) {
    if (name == name_of(type)) return type;
  }
  return std::nullopt;
}

}  // namespace quire
