// Device memory that frees itself.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/status.h"
#include "kernels/device.h"

namespace quire {

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // Takes over memory that came from device.allocate().
  DeviceBuffer(Device& device, void* memory) : device_(&device), memory_(memory) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~DeviceBuffer() {
    if (memory_ != nullptr) device_->free(memory_);
  }

  static absl::StatusOr<DeviceBuffer> allocate(Device& device, std::size_t bytes,
                                               const std::string& what) {
    if (bytes == 0) return DeviceBuffer();
    QUIRE_ASSIGN_OR_RETURN(void* memory, device.allocate(bytes, what));
    return DeviceBuffer(device, memory);
  }
  // The host's memory, page-locked where the device copies it faster so.
  static absl::StatusOr<DeviceBuffer> allocate_host(Device& device, std::size_t bytes,
                                                    const std::string& what) {
    QUIRE_ASSIGN_OR_RETURN(void* memory, device.allocate_host(bytes, what));
    return DeviceBuffer(device, memory);
  }
  // At start, with nothing enqueued: returns when the values are there.
  static absl::StatusOr<DeviceBuffer> of_floats(Device& device, absl::Span<const float> values,
                                                const std::string& what) {
    QUIRE_ASSIGN_OR_RETURN(DeviceBuffer buffer, allocate(device, values.size() * 4, what));
    if (values.empty()) return buffer;
    device.copy(buffer.memory_, values.data(), values.size() * 4);
    QUIRE_RETURN_IF_ERROR(device.wait());
    return buffer;
  }

  void* data() const { return memory_; }
  float* floats() const { return static_cast<float*>(memory_); }

 private:
  Device* device_ = nullptr;
  void* memory_ = nullptr;
};

}  // namespace quire
