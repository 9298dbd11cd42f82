// One thread at a time enqueues and waits.
#include "kernels/cuda/device.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status.h"
#include "kernels/cuda/collective/peer_collective.h"
#include "kernels/cuda/graphs.h"
#include "kernels/cuda/memory_pool.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/status.h"
#include "kernels/kv_dtype.h"

namespace quire::cuda {
namespace {

// Raised by every change that may alter a bit of an answer.
constexpr int kKernelRevision = 2;
constexpr int kOldestCapability = 80;

struct Gpu {
  int index = 0;
  int capability = 0;  // 90 for sm_90
  cudaDeviceProp properties = {};
};

absl::StatusOr<int> count_gpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count;
  cudaGetLastError();
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) return absl::NotFoundError("no NVIDIA driver is installed");
  if (error == cudaErrorInsufficientDriver) {
    int runtime = 0;
    cudaRuntimeGetVersion(&runtime);
    return absl::NotFoundError(absl::StrCat("the NVIDIA driver knows CUDA ", driver / 1000, ".",
                                            driver % 1000 / 10, ", this build needs ",
                                            runtime / 1000, ".", runtime % 1000 / 10));
  }
  return absl::NotFoundError(absl::StrCat("no GPU is visible (", cudaGetErrorName(error), ")"));
}

absl::StatusOr<Gpu> take_gpu(int index) {
  Gpu gpu;
  gpu.index = index;
  QUIRE_RETURN_IF_ERROR(
      to_status(cudaGetDeviceProperties(&gpu.properties, index), "asking what the GPU is"));
  gpu.capability = gpu.properties.major * 10 + gpu.properties.minor;
  if (gpu.capability < kOldestCapability) {
    return absl::NotFoundError(absl::StrCat(gpu.properties.name, " has compute capability ",
                                            gpu.properties.major, ".", gpu.properties.minor,
                                            "; 8.0 (A100) is the oldest supported"));
  }
  QUIRE_RETURN_IF_ERROR(to_status(cudaSetDevice(index), "choosing the GPU"));
  return gpu;
}

class CudaDevice final : public Device {
 public:
  CudaDevice(Gpu gpu, const DeviceOptions& options, int ranks_here, std::unique_ptr<Queue> queue,
             NcclSource nccl)
      : gpu_(gpu),
        options_(options),
        ranks_here_(ranks_here),
        nccl_(std::move(nccl)),
        queue_(std::move(queue)),
        ops_(*queue_, memories_, options.dtype == "float32", options.deterministic,
             options.cache_folder, kv_dtype_named(options.kv_dtype)),
        graphs_(*queue_) {}

  ~CudaDevice() override { use(); }

  std::string description() const override {
    return absl::StrFormat("cuda %d, %s, sm_%d, %d SMs, %.1f GB", gpu_.index, gpu_.properties.name,
                           gpu_.capability, gpu_.properties.multiProcessorCount,
                           static_cast<double>(gpu_.properties.totalGlobalMem) / 1e9);
  }
  std::string numerics_id() const override {
    return absl::StrCat("cuda-sm", gpu_.capability, "-r", kKernelRevision, "-", options_.dtype,
                        options_.deterministic ? "-deterministic" : "");
  }
  bool one_answer() const override { return options_.deterministic; }

  absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) override {
    use();
    return memories_.allocate(Place::kDevice, bytes, what);
  }
  absl::StatusOr<void*> allocate_host(std::size_t bytes, const std::string& what) override {
    use();
    return memories_.allocate(Place::kHost, bytes, what);
  }
  void free(void* memory) override {
    use();
    memories_.free(memory);
  }
  std::int64_t free_bytes() const override {
    use();
    std::size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) return 0;
    return static_cast<std::int64_t>(free) / ranks_here_;
  }
  double kv_share() const override { return options_.gpu_memory_utilization; }

  Ops& ops() override {
    use();
    return ops_;
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    use();
    queue_->copy(to, from, bytes);
  }
  void host_task(std::function<absl::Status()> task) override {
    use();
    queue_->host_task(std::move(task));
  }

  std::string collective_kind() const override { return "nccl"; }
  absl::StatusOr<std::string> make_collective_id() override {
    QUIRE_ASSIGN_OR_RETURN(const NcclApi api, nccl_());
    return make_nccl_id(api);
  }
  absl::StatusOr<std::unique_ptr<Collective>> open_collective(
      const CollectiveOptions& options) override {
    use();
    QUIRE_ASSIGN_OR_RETURN(const NcclApi api, nccl_());
    QUIRE_ASSIGN_OR_RETURN(OpenedCollective opened,
                           cuda::open_collective(api, options, queue_->stream()));
    watchdog_ = std::move(opened.watchdog);
    return std::move(opened.collective);
  }

  absl::Status wait() override {
    use();
    return watched([this](const Watch& watch) { return finish_all(watch); });
  }

  bool runs_ahead() const override { return true; }
  void end_step() override {
    use();
    queue_->end_step();
    ops_.end_step();
  }
  bool step_has_run() override {
    use();
    return queue_->step_has_run();
  }
  absl::Status wait_step() override {
    use();
    return watched([this](const Watch& watch) {
      const int steps_ago = queue_->unfinished_steps();
      absl::Status status = queue_->wait_step(watch);
      if (status.ok()) status = ops_.finish_step(steps_ago);
      if (!status.ok()) ops_.drop_steps();
      return status;
    });
  }
  bool keeps_records() const override { return !options_.enforce_eager; }
  void replay(std::uint64_t key, const std::function<void()>& record) override {
    use();
    if (options_.enforce_eager) return record();
    graphs_.replay(key, record);
  }
  void forget_records() override {
    use();
    graphs_.forget();
  }

 private:
  using Watch = std::function<absl::Status()>;

  // Calls wait(watch) while the deadline for peers runs.
  absl::Status watched(const std::function<absl::Status(const Watch&)>& wait) {
    if (watchdog_ == nullptr) return wait(nullptr);
    const WatchedWait deadline(*watchdog_);
    return wait([this] { return watchdog_->status(); });
  }
  absl::Status finish_all(const Watch& watch) {
    const int unfinished = queue_->unfinished_steps();
    absl::Status status = queue_->wait(watch);
    for (int steps_ago = unfinished; steps_ago >= 0 && status.ok(); --steps_ago) {
      status = ops_.finish_step(steps_ago);
    }
    if (!status.ok()) ops_.drop_steps();
    ops_.end_step();
    return status;
  }

  // Whichever thread calls: its current GPU is ours.
  void use() const { cudaSetDevice(gpu_.index); }

  const Gpu gpu_;
  const DeviceOptions options_;
  const int ranks_here_;  // that share this GPU
  const NcclSource nccl_;
  Memories memories_;
  std::unique_ptr<Queue> queue_;
  CudaOps ops_;
  Graphs graphs_;
  std::shared_ptr<Watchdog> watchdog_;  // of the collective opened last
};

std::string describe_peers(int index, int count) {
  std::string text;
  for (int other = 0; other < count; ++other) {
    int can = 0;
    if (other == index || cudaDeviceCanAccessPeer(&can, index, other) != cudaSuccess) continue;
    absl::StrAppend(&text, text.empty() ? "" : ", ", other, can != 0 ? " yes" : " no");
  }
  return text.empty() ? "none other here" : text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> open_cuda(const DeviceOptions& options, NcclSource nccl) {
  if (options.dtype != "auto" && options.dtype != "float32" && options.dtype != "bfloat16") {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype \"", options.dtype,
                     "\" is not one the cuda device computes in; use auto, bfloat16 or float32."));
  }
  if (options.kv_dtype == name_of(DType::kI8)) {
    return absl::InvalidArgumentError(
        "the cuda device does not store K and V as int8; use --kv-cache-dtype fp8, which takes as "
        "little, or the CPU (--device cpu).");
  }
  QUIRE_ASSIGN_OR_RETURN(const int count, count_gpus());
  QUIRE_ASSIGN_OR_RETURN(const Gpu gpu, take_gpu(options.local_rank % count));
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<Queue> queue, Queue::open());
  // Local ranks gpu.index, gpu.index + count, ... share this GPU.
  const int ranks_here = (options.num_local_ranks - gpu.index + count - 1) / count;
  return std::make_unique<CudaDevice>(gpu, options, std::max(1, ranks_here), std::move(queue),
                                      std::move(nccl));
}

std::string describe_gpus(const NcclSource& nccl) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  std::string text = absl::StrFormat("CUDA runtime  %d.%d\n", runtime / 1000, runtime % 1000 / 10);
  const absl::StatusOr<NcclApi> api = nccl();
  absl::StrAppend(&text, "NCCL          ",
                  api.ok() ? nccl_version(*api) : std::string(api.status().message()), "\n");
  const absl::StatusOr<int> count = count_gpus();
  if (!count.ok()) return absl::StrCat(text, "GPUs          ", count.status().message(), "\n");
  absl::StrAppendFormat(&text, "driver        CUDA %d.%d\n", driver / 1000, driver % 1000 / 10);
  for (int i = 0; i < *count; ++i) {
    cudaDeviceProp properties = {};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    absl::StrAppendFormat(
        &text, "GPU %-9d %s, sm_%d%d, %d SMs, %.1f GB; peer access: %s\n", i, properties.name,
        properties.major, properties.minor, properties.multiProcessorCount,
        static_cast<double>(properties.totalGlobalMem) / 1e9, describe_peers(i, *count));
  }
  return text;
}

}  // namespace quire::cuda
