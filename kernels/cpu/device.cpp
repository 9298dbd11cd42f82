// The device object: options checked, instruction set chosen, memory, team and ops tied together.
#include "kernels/cpu/device.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "kernels/cpu/clear_ahead.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/numa.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/team.h"
#include "kernels/kv_dtype.h"

namespace quire::cpu {
namespace {

// Raised by every change that may alter a bit of an answer.
constexpr int kKernelRevision = 3;

// Of all ranks here together, see clear_ahead.h.
constexpr std::size_t kClearedBytes = std::size_t{512} << 20;

// Over several NUMA nodes memory belongs where the threads are that write it: they touch it first.
std::size_t cleared_bytes(int num_local_ranks) {
  if (numa_nodes(cpus_of_this_thread()).size() > 1) return 0;
  return kClearedBytes / static_cast<std::size_t>(num_local_ranks);
}

absl::StatusOr<Arithmetic> parse_dtype(const std::string& dtype) {
  if (dtype == "auto") return Arithmetic::kAuto;
  if (dtype == "float32") return Arithmetic::kFloat32;
  if (dtype == "bfloat16") return Arithmetic::kBfloat16;
  return absl::InvalidArgumentError(absl::StrCat("dtype \"", dtype,
                                                 "\" is not one the cpu device computes in; use "
                                                 "auto, float32 or bfloat16."));
}

class CpuDevice final : public Device {
 public:
  CpuDevice(Isa isa, Arithmetic arithmetic, const DeviceOptions& options, int num_threads)
      : isa_(isa),
        dtype_(options.dtype),
        num_local_ranks_(options.num_local_ranks),
        clear_ahead_(cleared_bytes(options.num_local_ranks)),
        team_(num_threads),
        ops_(isa, arithmetic, kv_dtype_named(options.kv_dtype), num_threads, memory_, commands_) {}

  std::string description() const override {
    return absl::StrCat("cpu ", isa_ == Isa::kAvx512 ? "avx512-bf16-vnni" : name_of(isa_), ", ",
                        team_.size(), team_.size() == 1 ? " thread" : " threads");
  }
  // Activation layout and KV dtype follow from the dtype option and the weights' formats.
  std::string numerics_id() const override {
    return absl::StrCat("cpu-", name_of(isa_), "-r", kKernelRevision, "-", dtype_);
  }

  absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) override {
    return memory_.allocate(bytes, what);
  }
  absl::StatusOr<void*> allocate_host(std::size_t bytes, const std::string& what) override {
    return memory_.allocate(bytes, what);
  }
  void free(void* memory) override {
    clear_ahead_.forget();
    memory_.free(memory);
  }
  void expect_use(std::byte* begin, std::size_t bytes) override {
    clear_ahead_.expect(begin, bytes);
  }
  std::int64_t free_bytes() const override { return free_host_bytes() / num_local_ranks_; }
  double kv_share() const override { return 0.25; }
  Ops& ops() override { return ops_; }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes == 0) return;  // of nothing there may be no pointer
    host_task([to, from, bytes] {
      std::memcpy(to, from, bytes);
      return absl::OkStatus();
    });
  }
  void host_task(std::function<absl::Status()> task) override {
    commands_.push_back({.host = std::move(task)});
  }
  std::string collective_kind() const override { return ""; }
  absl::StatusOr<std::string> make_collective_id() override { return ""; }
  absl::StatusOr<std::unique_ptr<Collective>> open_collective(const CollectiveOptions&) override {
    return nullptr;
  }
  absl::Status wait() override {
    clear_ahead_.begin_run();
    absl::Status status = team_.run(commands_);
    clear_ahead_.end_run();
    commands_.clear();
    ops_.begin_list();
    return status;
  }

 private:
  const Isa isa_;
  const std::string dtype_;
  const int num_local_ranks_;
  HostMemory memory_;
  ClearAhead clear_ahead_;
  std::vector<Command> commands_;
  Team team_;
  CpuOps ops_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> open_cpu(const DeviceOptions& options) {
  QUIRE_ASSIGN_OR_RETURN(const Arithmetic arithmetic, parse_dtype(options.dtype));
  if (options.num_threads < 0) {
    return absl::InvalidArgumentError(absl::StrCat("num_threads ", options.num_threads,
                                                   " is negative; use 0 for one thread per core."));
  }
  if (options.kv_dtype == name_of(DType::kF8E4M3)) {
    return absl::InvalidArgumentError(
        "the CPU does not store K and V as fp8; use --kv-cache-dtype int8, which takes as little, "
        "auto, float32, float16 or bfloat16, or a GPU (--device cuda).");
  }
  QUIRE_ASSIGN_OR_RETURN(const Isa isa, choose_isa(options.isa));
  keep_to(
      cpus_of_rank(numa_nodes(cpus_of_this_thread()), options.local_rank, options.num_local_ranks));
  const int num_threads = options.num_threads > 0
                              ? options.num_threads
                              : std::max(1, static_cast<int>(cpus_of_this_thread().size()));
  return std::make_unique<CpuDevice>(isa, arithmetic, options, num_threads);
}

}  // namespace quire::cpu
