// The waist, part one: a place to compute and its memory. One device per worker process, chosen
// once in main by open_device(). Ops enqueue on the device's stream; nothing runs on the host's
// time and nothing may be read back before wait(). Device memory is reached by copy() and ops
// alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/collective.h"

namespace quire {

class Ops;

class Device {
 public:
  virtual ~Device() = default;

  // e.g. "cpu avx512-bf16-vnni, 2 threads": for the log.
  virtual std::string description() const = 0;
  // ISA path, kernel revision, activation mode: everything that may change a bit of an answer.
  virtual std::string numerics_id() const = 0;
  // Whether a row's bits are the same whatever rows share its batch.
  virtual bool one_answer() const { return true; }

  // 64-byte aligned device memory, zeroed. ResourceExhausted names `what` and the bytes.
  virtual absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) = 0;
  // The same of the host's memory, such that copy() reaches it at full speed.
  virtual absl::StatusOr<void*> allocate_host(std::size_t bytes, const std::string& what) = 0;
  virtual void free(void* memory) = 0;  // of either kind
  // These bytes, of memory from allocate(), are written for the first time next, from the front; a
  // host device may get them ready while it has nothing to run. Takes the place of what was
  // expected before.
  virtual void expect_use(std::byte* /*begin*/, std::size_t /*bytes*/) {}
  // This rank's part of the memory that can be had now (ranks may share a device); 0 where the
  // system does not tell.
  virtual std::int64_t free_bytes() const = 0;
  // The share of it that a KV cache of no stated size may take: others may live here too.
  virtual double kv_share() const = 0;

  virtual Ops& ops() = 0;

  // Enqueues a copy, from and to memory of this device or the host's; both must live until wait().
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;

  // Enqueues host work in stream order: `task` runs on one host thread after everything enqueued
  // before and before everything enqueued after. Used by Comm for its exchanges.
  virtual void host_task(std::function<absl::Status()> task) = 0;

  // Where ranks do not meet in host memory: by what they do, e.g. "nccl", the same on every rank of
  // a group. Rank 0 makes an id for each life of the group, and every rank opens a collective with
  // it. A host device gives an empty kind, an empty id and a null collective.
  virtual std::string collective_kind() const = 0;
  virtual absl::StatusOr<std::string> make_collective_id() = 0;
  virtual absl::StatusOr<std::unique_ptr<Collective>> open_collective(
      const CollectiveOptions& options) = 0;

  // Runs everything enqueued so far to its end. Returns the first error a host task reported; after
  // an error the rest of the list is dropped.
  virtual absl::Status wait() = 0;

  // --- steps in flight; a host device computes in wait(), has one step, and keeps nothing ---
  // Whether work runs while the host goes on, so that the next step should be enqueued before this
  // one is waited for.
  virtual bool runs_ahead() const { return false; }
  // What was enqueued since the last call is a step. Two may be unwaited for.
  virtual void end_step() {}
  // Whether the oldest such step has run. Does not block.
  virtual bool step_has_run() { return true; }
  // Runs the oldest such step to its end; as wait().
  virtual absl::Status wait_step() { return wait(); }
  // Whether replay() keeps what it recorded: then steps should be brought to few shapes.
  virtual bool keeps_records() const { return false; }
  // Enqueues what `record` enqueues: ops, copies inside the device and exchanges, the same whenever
  // `key` is. A device that keeps records may enqueue again what an earlier call recorded.
  virtual void replay(std::uint64_t /*key*/, const std::function<void()>& record) { record(); }
  // Before any memory or collective that a record names goes.
  virtual void forget_records() {}
};

struct DeviceOptions {
  std::string kind = "auto";   // auto, cuda, cpu, reference
  std::string isa = "auto";    // cpu: auto, avx512, avx2
  std::string dtype = "auto";  // auto, float32, bfloat16: the arithmetic class of the linears
  // What K and V are stored as: auto, float32, float16, bfloat16, fp8 (not cpu), int8 (not cuda).
  std::string kv_dtype = "auto";
  int num_threads = 0;  // cpu: 0 = one per core
  int local_rank = 0;   // among the ranks of this host; cuda: GPU local_rank modulo visible
  int num_local_ranks = 1;
  double gpu_memory_utilization = 0.9;  // cuda: kv_share()
  bool deterministic = false;           // cuda: one kernel class whatever the number of rows
  bool enforce_eager = false;           // cuda: no graphs
  std::string cache_folder = "";        // cuda: keeps what was measured; empty: nothing is kept
};

// NotFound says which instruction sets or devices this machine lacks for what was asked.
absl::StatusOr<std::unique_ptr<Device>> open_device(const DeviceOptions& options);

// What this machine has, as lines for a person (`quire doctor`): the CPU's path, and the GPUs or
// why there are none.
std::string describe_devices();

}  // namespace quire
