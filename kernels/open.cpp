// The table of devices this build has.
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/device.h"
#include "kernels/cuda_plugin.h"
#include "kernels/device.h"
#include "kernels/kv_dtype.h"
#include "kernels/reference/device.h"
#include "spdlog/spdlog.h"

namespace quire {

namespace {

absl::StatusOr<std::unique_ptr<Device>> open_cuda(const DeviceOptions& options) {
  const absl::StatusOr<const CudaPlugin*> plugin = load_cuda_plugin();
  if (!plugin.ok()) return plugin.status();
  return (*plugin)->open(options);
}

absl::StatusOr<std::unique_ptr<Device>> open_host(const DeviceOptions& options) {
  absl::StatusOr<std::unique_ptr<Device>> device = cpu::open_cpu(options);
  if (options.kind == "auto" && absl::IsNotFound(device.status()) && options.isa == "auto") {
    spdlog::warn("{} Falling back to the reference device, which is slow.",
                 std::string(device.status().message()));
    return reference::open_reference(options);
  }
  return device;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> open_device(const DeviceOptions& options) {
  if (options.kv_dtype != "auto" && !kv_dtype_named(options.kv_dtype).has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("K and V cannot be stored as \"", options.kv_dtype,
                     "\"; use auto, float32, float16, bfloat16, fp8 or int8."));
  }
  if (options.kind == "reference") return reference::open_reference(options);
  if (options.kind == "cuda") return open_cuda(options);
  if (options.kind == "cpu") return open_host(options);
  if (options.kind != "auto") {
    return absl::NotFoundError(absl::StrCat("there is no device \"", options.kind,
                                            "\"; use auto, cuda, cpu or reference."));
  }
  if (!has_nvidia_driver()) {
    spdlog::info("no GPU is used: no NVIDIA driver is installed");
    return open_host(options);
  }
  absl::StatusOr<std::unique_ptr<Device>> device = open_cuda(options);
  if (device.ok() || !absl::IsNotFound(device.status())) return device;
  spdlog::info("no GPU is used: {}", std::string(device.status().message()));
  return open_host(options);
}

std::string describe_devices() {
  DeviceOptions host;
  host.kind = "cpu";
  const auto cpu = cpu::open_cpu(host);
  std::string text =
      absl::StrCat("CPU           ",
                   cpu.ok() ? (*cpu)->description() : std::string(cpu.status().message()), "\n");
  const absl::StatusOr<const CudaPlugin*> plugin = load_cuda_plugin();
  if (!plugin.ok()) return absl::StrCat(text, "CUDA          ", plugin.status().message(), "\n");
  return text + (*plugin)->describe();
}

}  // namespace quire
