// The reference device: a list of closures and the memory they work on.
#include "kernels/reference/device.h"

#include <cstring>
#include <utility>

#include "common/status.h"
#include "kernels/kv_dtype.h"
#include "kernels/reference/ops.h"

namespace quire::reference {
namespace {

class ReferenceDevice final : public Device {
 public:
  ReferenceDevice(int num_local_ranks, std::optional<DType> kv_dtype)
      : num_local_ranks_(num_local_ranks), ops_(kv_dtype, memory_, tasks_) {}

  std::string description() const override { return "reference, fp32, 1 thread"; }
  std::string numerics_id() const override { return "reference-r1-f32"; }

  absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) override {
    return memory_.allocate(bytes, what);
  }
  absl::StatusOr<void*> allocate_host(std::size_t bytes, const std::string& what) override {
    return memory_.allocate(bytes, what);
  }
  void free(void* memory) override { memory_.free(memory); }
  std::int64_t free_bytes() const override { return free_host_bytes() / num_local_ranks_; }
  double kv_share() const override { return 0.25; }
  Ops& ops() override { return ops_; }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes == 0) return;  // of nothing there may be no pointer
    tasks_.push_back([to, from, bytes] {
      std::memcpy(to, from, bytes);
      return absl::OkStatus();
    });
  }
  void host_task(std::function<absl::Status()> task) override { tasks_.push_back(std::move(task)); }

  std::string collective_kind() const override { return ""; }
  absl::StatusOr<std::string> make_collective_id() override { return ""; }
  absl::StatusOr<std::unique_ptr<Collective>> open_collective(const CollectiveOptions&) override {
    return nullptr;
  }
  absl::Status wait() override {
    const std::vector<Task> tasks = std::exchange(tasks_, {});
    for (const Task& task : tasks) QUIRE_RETURN_IF_ERROR(task());
    return absl::OkStatus();
  }

 private:
  const int num_local_ranks_;
  HostMemory memory_;
  std::vector<Task> tasks_;
  ReferenceOps ops_;
};

}  // namespace

std::unique_ptr<Device> open_reference(const DeviceOptions& options) {
  return std::make_unique<ReferenceDevice>(options.num_local_ranks,
                                           kv_dtype_named(options.kv_dtype));
}

}  // namespace quire::reference
