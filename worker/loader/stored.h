// Elements of a tensor of a mapped safetensors file, as the schemes of transcode.h read them. The
// shape has been compared with the file and with its neighbours before (common/model_file), so
// indices are not checked here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/model_file/model_file.h"
#include "kernels/formats/half.h"

namespace quire {

class StoredView {
 public:
  StoredView() = default;
  StoredView(const StoredTensor& tensor, const std::byte* data)
      : dtype_(tensor.dtype),
        columns_(tensor.shape.empty() ? 1 : static_cast<std::size_t>(tensor.shape.back())),
        data_(data) {}

  std::uint32_t word(std::size_t row, std::size_t column) const {
    std::uint32_t value = 0;
    std::memcpy(&value, data_ + 4 * (row * columns_ + column), sizeof(value));
    return value;
  }
  // Of F32, F16 and BF16.
  float number(std::size_t row, std::size_t column) const {
    const std::size_t at = row * columns_ + column;
    if (dtype_ == Dtype::kF16) return load_half(data_ + 2 * at);
    if (dtype_ == Dtype::kBf16) {
      Bf16 value;
      std::memcpy(&value.bits, data_ + 2 * at, sizeof(value.bits));
      return to_float(value);
    }
    float value = 0.0f;
    std::memcpy(&value, data_ + 4 * at, sizeof(value));
    return value;
  }
  const std::byte* data() const { return data_; }

 private:
  Dtype dtype_ = Dtype::kF32;
  std::size_t columns_ = 0;
  const std::byte* data_ = nullptr;
};

}  // namespace quire
