// The table of devices this build has.
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/device.h"
#include "kernels/device.h"
#include "kernels/reference/device.h"
#include "spdlog/spdlog.h"

namespace quire {

absl::StatusOr<std::unique_ptr<Device>> open_device(const DeviceOptions& options) {
  if (options.kind == "reference") return reference::open_reference();
  if (options.kind != "cpu" && options.kind != "auto") {
    return absl::NotFoundError(absl::StrCat("this build has no device \"", options.kind,
                                            "\"; use auto, cpu or reference."));
  }
  absl::StatusOr<std::unique_ptr<Device>> device = cpu::open_cpu(options);
  if (options.kind == "auto" && absl::IsNotFound(device.status()) && options.isa == "auto") {
    spdlog::warn("{} Falling back to the reference device, which is slow.",
                 std::string(device.status().message()));
    return reference::open_reference();
  }
  return device;
}

}  // namespace quire
