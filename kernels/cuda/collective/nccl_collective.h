// Collective over NCCL: a communicator made without blocking from the id that rank 0 gave, all its
// calls on the device's stream, a watchdog for the peers. Whatever goes wrong is kept and ends the
// step: Device::wait() asks watchdog()->status(), and brackets its waiting by begin_wait() and
// end_wait(), for the deadline runs in between.
//
// Statuses: ResourceExhausted (exit code 71) what NCCL or the device reports; Unavailable and
// DeadlineExceeded a peer that went or did not come; Aborted after abort().
//
// One thread enqueues. CUDA graphs that hold its calls are destroyed before it. After an error the
// communicator is gone, and every call does nothing.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "kernels/collective.h"
#include "kernels/cuda/collective/nccl_api.h"
#include "kernels/cuda/collective/watchdog.h"

namespace quire::cuda {

// What rank 0 makes for each epoch: the address of a socket in its process.
absl::StatusOr<std::string> make_nccl_id(const NcclApi& api);

class NcclCollective final : public Collective {
 public:
  ~NcclCollective() override;

  std::string description() const override;
  absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) override;
  void all_gather(const void* in, void* out, std::size_t bytes) override;
  void broadcast(void* data, std::size_t bytes, int root) override;
  const void* peer(const void*, int) const override { return nullptr; }
  void meet() override {}
  void abort() override;

  // Outlives this where the device still holds it.
  std::shared_ptr<Watchdog> watchdog() const { return watchdog_; }
  absl::Status status() const { return watchdog_->status(); }

  // `mine` of every rank, in rank order, all of one length: waits for the stream. For set-up.
  absl::StatusOr<std::vector<std::string>> exchange(const std::string& mine);
  // Host memory that the device reads: not 0 once waiting kernels are to leave.
  const std::uint32_t* abort_word() const { return abort_word_; }

 private:
  friend absl::StatusOr<std::unique_ptr<NcclCollective>> open_nccl(const NcclApi&,
                                                                   const CollectiveOptions&,
                                                                   cudaStream_t);
  NcclCollective(const NcclApi& api, const CollectiveOptions& options, cudaStream_t stream);
  absl::Status open();
  absl::Status start(const ncclUniqueId& id);
  void finalize();
  absl::Status poll();
  void give_up();
  void enqueue(const char* what, const std::function<ncclResult_t(ncclComm_t)>& call);
  absl::Status settle(ncclResult_t result, const char* what);
  absl::Status explain(ncclResult_t result, const char* what);

  const NcclApi api_;
  const CollectiveOptions options_;
  const cudaStream_t stream_;
  int device_ = 0;
  std::uint32_t* abort_word_ = nullptr;
  std::vector<void*> buffers_;
  absl::Mutex mutex_;                                  // of calls that name the communicator
  ncclComm_t comm_ ABSL_GUARDED_BY(mutex_) = nullptr;  // null: aborted
  std::shared_ptr<Watchdog> watchdog_;
};

// Collective: every rank of options.world calls it, each with its device current. Returns when all
// have joined, at the latest after options.deadline_ms.
absl::StatusOr<std::unique_ptr<NcclCollective>> open_nccl(const NcclApi& api,
                                                          const CollectiveOptions& options,
                                                          cudaStream_t stream);

}  // namespace quire::cuda
