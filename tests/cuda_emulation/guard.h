// Guarded memory: what cudaMalloc and cudaMallocHost give. An allocation ends (up to a rounding to
// 16 bytes) at inaccessible pages and begins behind others; it is full of NaN bytes; freed, it
// stays inaccessible for a while. A fault names the allocation and the kernel thread. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace quire::cuda_emulation {

// kForeign: another process's device memory, mapped here.
enum class MemoryKind { kDevice, kPinned, kForeign };

struct Allocation {
  char* at = nullptr;
  size_t bytes = 0;
  int device = 0;
  MemoryKind kind = MemoryKind::kDevice;
  uint64_t number = 0;
  std::string name;
  bool freed = false;
  char* base = nullptr;  // the mapping, with the inaccessible pages on both sides
  size_t mapped = 0;
  int shared_fd = -1;  // behind it, once it was given to other processes
};

// Null where the system has no memory.
void* allocate(size_t bytes, int device, MemoryKind kind);
enum class FreeResult { kDone, kUnknown };
// Dies where the bytes between the end and the pages were written.
FreeResult release(void* pointer, MemoryKind kind);
// The live allocation that holds all of [pointer, pointer + bytes).
std::optional<Allocation> find_allocation(const void* pointer, size_t bytes = 1);
size_t device_bytes_used(int device);
// Live allocations of all devices: a test that leaks sees them.
size_t live_allocations();
// Dies where bytes behind the end of any allocation were written.
void check_all_slack();

// Turns memory into memory that other processes can map (cudaIpcGetMemHandle): same address, same
// content, but behind a file descriptor, which is returned; -1 where it fails.
int share_allocation(const void* pointer, size_t* mapped, size_t* offset);

// Enters memory mapped from another process, and takes it out again.
void adopt(void* pointer, size_t bytes, void* mapping, size_t mapped);
void disown(void* pointer);

// Once per process: SIGSEGV and SIGBUS of kernels end with a sentence.
void install_fault_handler();

}  // namespace quire::cuda_emulation
