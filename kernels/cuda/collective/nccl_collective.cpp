// The life of a communicator: made without blocking, used under a mutex so that the watchdog may
// abort it between two calls, finalized when all went well.
#include "kernels/cuda/collective/nccl_collective.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status.h"
#include "kernels/cuda/status.h"

namespace quire::cuda {
namespace {

constexpr absl::Duration kPollPause = absl::Milliseconds(1);
// Peers that have ended differently do not come to our finalizing.
constexpr absl::Duration kFinalizePatience = absl::Milliseconds(500);

absl::Status gave_up() {
  return absl::AbortedError("an exchange was given up: the epoch ended");
}

}  // namespace

absl::StatusOr<std::string> make_nccl_id(const NcclApi& api) {
  ncclUniqueId id;
  if (const ncclResult_t result = api.get_unique_id(&id); result != ncclSuccess) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "NCCL cannot make an id for the group: ", api.get_error_string(result), " (",
        api.get_last_error(nullptr), "); check NCCL_SOCKET_IFNAME and the host's interfaces"));
  }
  return std::string(id.internal, sizeof id.internal);
}

NcclCollective::NcclCollective(const NcclApi& api, const CollectiveOptions& options,
                               cudaStream_t stream)
    : api_(api), options_(options), stream_(stream) {}

absl::StatusOr<std::unique_ptr<NcclCollective>> open_nccl(const NcclApi& api,
                                                          const CollectiveOptions& options,
                                                          cudaStream_t stream) {
  auto collective = std::unique_ptr<NcclCollective>(new NcclCollective(api, options, stream));
  QUIRE_RETURN_IF_ERROR(collective->open());
  return collective;
}

absl::Status NcclCollective::open() {
  ncclUniqueId id;
  if (options_.id.size() != sizeof id.internal) {
    return absl::InvalidArgumentError(absl::StrCat("the group's NCCL id has ", options_.id.size(),
                                                   " bytes instead of ", sizeof id.internal));
  }
  std::memcpy(id.internal, options_.id.data(), sizeof id.internal);
  QUIRE_RETURN_IF_ERROR(to_status(cudaGetDevice(&device_), "opening a communicator"));
  void* word = nullptr;
  QUIRE_RETURN_IF_ERROR(
      to_status(cudaHostAlloc(&word, sizeof *abort_word_, cudaHostAllocMapped), "the abort word"));
  abort_word_ = static_cast<std::uint32_t*>(word);
  *abort_word_ = 0;
  watchdog_ = std::make_shared<Watchdog>(
      Watchdog::Communicator{[this] { return poll(); }, [this] { give_up(); }},
      absl::Milliseconds(options_.deadline_ms));
  absl::Status status = start(id);
  if (status.ok()) return status;
  watchdog_->fail(status);
  status = watchdog_->status();  // the first failure: where the watchdog gave up, its reason
  if (!absl::IsDeadlineExceeded(status)) return status;
  return absl::DeadlineExceededError(absl::StrCat(
      "not all ", options_.world, " ranks joined the group's NCCL communicator within ",
      options_.deadline_ms, " ms; a rank failed to start, or NCCL_SOCKET_IFNAME names ",
      "an interface that the others do not reach"));
}

absl::Status NcclCollective::start(const ncclUniqueId& id) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const WatchedWait wait(*watchdog_);
  ncclResult_t result = ncclSuccess;
  {
    absl::MutexLock lock(&mutex_);
    result = api_.comm_init_rank_config(&comm_, options_.world, id, options_.rank, &config);
  }
  return settle(result, "joining the group's communicator");
}

NcclCollective::~NcclCollective() {
  if (watchdog_ != nullptr) {
    watchdog_->stop();
    if (watchdog_->status().ok()) finalize();
  }
  give_up();
  for (void* buffer : buffers_) cudaFree(buffer);
  if (abort_word_ != nullptr) cudaFreeHost(abort_word_);
}

// The watchdog has stopped: nobody else names the communicator.
void NcclCollective::finalize() {
  absl::MutexLock lock(&mutex_);
  if (comm_ == nullptr) return;
  ncclResult_t state = api_.comm_finalize(comm_);
  const absl::Time deadline = absl::Now() + kFinalizePatience;
  while (state == ncclInProgress && absl::Now() < deadline) {
    absl::SleepFor(kPollPause);
    if (const ncclResult_t asked = api_.comm_get_async_error(comm_, &state); asked != ncclSuccess) {
      state = asked;
    }
  }
  if (state == ncclSuccess) api_.comm_destroy(std::exchange(comm_, nullptr));
}

std::string NcclCollective::description() const {
  return absl::StrCat("nccl ", nccl_version(api_));
}

absl::StatusOr<void*> NcclCollective::allocate(std::size_t bytes, const std::string& what) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    std::size_t free = 0, total = 0;
    static_cast<void>(cudaMemGetInfo(&free, &total));
    return absl::ResourceExhaustedError(
        absl::StrCat(what, " needs ", bytes, " bytes of device memory and ", free, " are free"));
  }
  buffers_.push_back(memory);
  QUIRE_RETURN_IF_ERROR(to_status(cudaMemsetAsync(memory, 0, bytes, stream_), what));
  QUIRE_RETURN_IF_ERROR(to_status(cudaStreamSynchronize(stream_), what));
  return memory;
}

void NcclCollective::all_gather(const void* in, void* out, std::size_t bytes) {
  enqueue("an all-gather", [&](ncclComm_t comm) {
    return api_.all_gather(in, out, bytes, ncclUint8, comm, stream_);
  });
}

void NcclCollective::broadcast(void* data, std::size_t bytes, int root) {
  enqueue("a broadcast", [&](ncclComm_t comm) {
    return api_.broadcast(data, data, bytes, ncclUint8, root, comm, stream_);
  });
}

void NcclCollective::abort() {
  watchdog_->fail(gave_up());
}

absl::StatusOr<std::vector<std::string>> NcclCollective::exchange(const std::string& mine) {
  const auto world = static_cast<std::size_t>(options_.world);
  void* all = nullptr;
  QUIRE_RETURN_IF_ERROR(to_status(cudaMalloc(&all, world * mine.size()), "an exchange"));
  std::byte* own =
      static_cast<std::byte*>(all) + static_cast<std::size_t>(options_.rank) * mine.size();
  std::string gathered(world * mine.size(), '\0');
  cudaError_t error =
      cudaMemcpyAsync(own, mine.data(), mine.size(), cudaMemcpyHostToDevice, stream_);
  all_gather(own, all, mine.size());
  {
    const WatchedWait wait(*watchdog_);
    if (error == cudaSuccess) {
      error =
          cudaMemcpyAsync(gathered.data(), all, gathered.size(), cudaMemcpyDeviceToHost, stream_);
    }
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
  }
  cudaFree(all);
  QUIRE_RETURN_IF_ERROR(status());
  QUIRE_RETURN_IF_ERROR(to_status(error, "an exchange"));
  std::vector<std::string> out;
  for (std::size_t r = 0; r < world; ++r)
    out.push_back(gathered.substr(r * mine.size(), mine.size()));
  return out;
}

void NcclCollective::enqueue(const char* what,
                             const std::function<ncclResult_t(ncclComm_t)>& call) {
  if (!watchdog_->status().ok()) return;  // the watchdog may not have aborted it yet
  static_cast<void>(cudaSetDevice(device_));
  ncclResult_t result = ncclSuccess;
  {
    absl::MutexLock lock(&mutex_);
    if (comm_ == nullptr) return;
    result = call(comm_);
  }
  absl::Status status = settle(result, what);
  if (!status.ok() && !is_capturing(stream_)) watchdog_->fail(status);
}

// The first calls build connections and answer before they are done: nothing else may be called
// until then.
absl::Status NcclCollective::settle(ncclResult_t result, const char* what) {
  if (result == ncclSuccess) return absl::OkStatus();
  const WatchedWait wait(*watchdog_);
  while (result == ncclInProgress) {
    {
      absl::MutexLock lock(&mutex_);
      if (comm_ == nullptr) return gave_up();
      if (const ncclResult_t asked = api_.comm_get_async_error(comm_, &result);
          asked != ncclSuccess) {
        result = asked;
      }
    }
    if (result == ncclInProgress) absl::SleepFor(kPollPause);
  }
  return explain(result, what);
}

absl::Status NcclCollective::explain(ncclResult_t result, const char* what) {
  if (result == ncclSuccess) return absl::OkStatus();
  std::string text;
  {
    absl::MutexLock lock(&mutex_);
    text = absl::StrCat("NCCL: ", api_.get_error_string(result), " during ", what, " on rank ",
                        options_.rank, " (", api_.get_last_error(comm_), ")");
  }
  if (result == ncclRemoteError) return absl::UnavailableError(text);
  if (result == ncclInvalidUsage) {
    absl::StrAppend(&text, "; give every rank a GPU of its own");
  }
  return absl::ResourceExhaustedError(text);
}

absl::Status NcclCollective::poll() {
  ncclResult_t state = ncclSuccess;
  {
    absl::MutexLock lock(&mutex_);
    if (comm_ == nullptr) return absl::OkStatus();
    if (const ncclResult_t asked = api_.comm_get_async_error(comm_, &state); asked != ncclSuccess) {
      state = asked;
    }
  }
  if (state == ncclInProgress) return absl::OkStatus();
  return explain(state, "the work under way");
}

void NcclCollective::give_up() {
  ncclComm_t comm = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    comm = std::exchange(comm_, nullptr);
  }
  if (abort_word_ != nullptr) __atomic_store_n(abort_word_, 1u, __ATOMIC_RELEASE);
  if (comm == nullptr) return;
  static_cast<void>(cudaSetDevice(device_));
  static_cast<void>(api_.comm_abort(comm));
}

}  // namespace quire::cuda
