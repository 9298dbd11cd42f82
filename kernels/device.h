// The waist, part one: a place to compute and its memory. One device per worker process, chosen
// once in main by open_device(). Ops enqueue on the device's stream; nothing runs on the host's
// time and nothing may be read back before wait().
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace quire {

class Ops;

class Device {
 public:
  virtual ~Device() = default;

  // e.g. "cpu avx512-bf16-vnni, 2 threads": for the log.
  virtual std::string description() const = 0;
  // ISA path, kernel revision, activation mode: everything that may change a bit of an answer.
  virtual std::string numerics_id() const = 0;

  // 64-byte aligned device memory, zeroed. ResourceExhausted names `what` and the bytes.
  virtual absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) = 0;
  virtual void free(void* memory) = 0;

  virtual Ops& ops() = 0;

  // Enqueues host work in stream order: `task` runs on one host thread after everything enqueued
  // before and before everything enqueued after. Used by Comm for its exchanges.
  virtual void host_task(std::function<absl::Status()> task) = 0;

  // Runs everything enqueued so far to its end. Returns the first error a host task reported; after
  // an error the rest of the list is dropped.
  virtual absl::Status wait() = 0;
};

struct DeviceOptions {
  std::string kind = "auto";   // auto, cpu, reference
  std::string isa = "auto";    // cpu: auto, avx512, avx2
  std::string dtype = "auto";  // auto, float32, bfloat16: the arithmetic class of the linears
  int num_threads = 0;         // 0 = one per core
};

// NotFound says which instruction sets or devices this machine lacks for what was asked.
absl::StatusOr<std::unique_ptr<Device>> open_device(const DeviceOptions& options);

}  // namespace quire
