// What the benches of CUDA kernels share: memory, numbers in it, times, lines of JSON, and the two
// ceilings of the machine, measured in the same run as the kernels.
//
// Times are of work on a captured graph of many calls: no launch gap of the host is in them. Calls
// take turns over several copies of their inputs, so that no call finds the last one's in the L2.
// The same sources run at tiny sizes over tests/cuda_emulation, where times mean nothing.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace quire::bench {

// Ends the program with a sentence: a bench has nothing to save.
void must(cudaError_t error, const char* what);

// Device memory of random numbers in [-1, 1), or zeroed.
class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::size_t bytes() const { return bytes_; }
  void randomize_bf16(std::uint32_t seed);
  void randomize_f32(std::uint32_t seed);
  void upload(const void* from, std::size_t bytes);

 private:
  void* data_ = nullptr;
  std::size_t bytes_;
};

struct Times {
  double median_us = 0, least_us = 0, most_us = 0;
};

struct Effort {
  double sample_ms = 8;  // about how long one sample lasts
  int samples = 9;
  int max_calls = 400;  // in one sample
};
Effort tiny_effort();

// `call(stream, i)` enqueues the i-th call and returns its error; i counts from 0 and picks the
// copy.
using Call = std::function<cudaError_t(cudaStream_t, int)>;
Times measure(const Call& call, const Effort& effort);

// How many copies of something make `bytes` miss the L2 in turn; 1 where one copy does already.
int copies_to_miss_l2(std::size_t bytes);

struct Ceilings {
  double read_gb_s = 0;  // reading once
  double copy_gb_s = 0;  // bytes read and written
};
Ceilings measure_ceilings(std::size_t bytes, const Effort& effort);

std::string gpu_name();

// One result, printed as a line of JSON when it dies.
class Line {
 public:
  explicit Line(const std::string& bench);
  ~Line();
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;
  Line& add(const char* key, double value);
  Line& add(const char* key, const std::string& value);
  Line& add(const Times& times);

 private:
  std::string text_;
};

// What main() does where the options are --tiny and --only PART: calls run(tiny, part). Other
// options end with the usage and 64.
int run_with_options(int argc, char** argv, const char* usage,
                     const std::function<int(bool tiny, const std::string& only)>& run);

}  // namespace quire::bench
