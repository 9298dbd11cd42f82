// Every kernel and copy of a process on the GPU's clock, without nsys: the CUDA driver loads this
// library where CUDA_INJECTION64_PATH names it. Lines "start end name" in nanoseconds go to the
// file that QUIRE_GPU_TRACE names; kernel_trace.py reads them. It costs about a microsecond a
// kernel.
#include <cupti.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

constexpr std::size_t kBufferBytes = std::size_t{8} << 20;
constexpr std::size_t kNameLength = 100;

std::FILE* file() {
  static std::FILE* const opened = [] {
    const char* path = std::getenv("QUIRE_GPU_TRACE");
    return path == nullptr ? nullptr : std::fopen(path, "a");
  }();
  return opened;
}

void line(std::uint64_t start, std::uint64_t end, const char* name) {
  std::fprintf(file(), "%llu %llu %.*s\n", static_cast<unsigned long long>(start),
               static_cast<unsigned long long>(end), static_cast<int>(kNameLength), name);
}

void write_record(const CUpti_Activity& record) {
  if (record.kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
    const auto& kernel = reinterpret_cast<const CUpti_ActivityKernel10&>(record);
    line(kernel.start, kernel.end, kernel.name == nullptr ? "kernel" : kernel.name);
  } else if (record.kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
    const auto& copy = reinterpret_cast<const CUpti_ActivityMemcpy6&>(record);
    line(copy.start, copy.end,
         copy.copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_HTOD ? "copy_in" : "copy");
  }
}

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* max_records) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(64, kBufferBytes));
  *size = *buffer == nullptr ? 0 : kBufferBytes;
  *max_records = 0;
}

void CUPTIAPI take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t,
                          std::size_t valid) {
  CUpti_Activity* record = nullptr;
  while (file() != nullptr && cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    write_record(*record);
  }
  if (file() != nullptr) std::fflush(file());
  std::free(buffer);
}

}  // namespace

// Called by the driver. 1: go on.
extern "C" __attribute__((visibility("default"))) int InitializeInjection() {
  if (cuptiActivityRegisterCallbacks(give_buffer, take_buffer) != CUPTI_SUCCESS ||
      cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS ||
      cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY) != CUPTI_SUCCESS) {
    std::fprintf(stderr, "the trace of kernels could not be begun\n");
    return 1;
  }
  cuptiActivityFlushPeriod(200);
  std::atexit([] { cuptiActivityFlushAll(1); });
  return 1;
}
