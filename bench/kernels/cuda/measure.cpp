#include "bench/kernels/cuda/measure.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "bench/kernels/cuda/fill.h"

namespace quire::bench {

void must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s (%s)\n", what, cudaGetErrorString(error), cudaGetErrorName(error));
  std::exit(error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ? 77 : 1);
}

DeviceMemory::DeviceMemory(std::size_t bytes) : bytes_(bytes) {
  must(cudaMalloc(&data_, bytes), "taking device memory");
  must(cudaMemset(data_, 0, bytes), "clearing device memory");
}
DeviceMemory::~DeviceMemory() {
  must(cudaFree(data_), "freeing device memory");
}
void DeviceMemory::randomize_bf16(std::uint32_t seed) {
  must(fill_bf16(nullptr, data_, bytes_ / 2, seed), "filling");
}
void DeviceMemory::randomize_f32(std::uint32_t seed) {
  must(fill_f32(nullptr, as<float>(), bytes_ / 4, seed), "filling");
}
void DeviceMemory::upload(const void* from, std::size_t bytes) {
  must(cudaMemcpy(data_, from, bytes, cudaMemcpyHostToDevice), "uploading");
}

Effort tiny_effort() {
  return {.sample_ms = 0, .samples = 2, .max_calls = 2};
}

namespace {

class Stream {
 public:
  Stream() {
    must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
    must(cudaEventCreate(&begin_), "making an event");
    must(cudaEventCreate(&end_), "making an event");
  }
  ~Stream() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  // Milliseconds of what `work` enqueues.
  template <typename Work>
  double time(const Work& work) {
    must(cudaEventRecord(begin_, stream_), "recording");
    work();
    must(cudaEventRecord(end_, stream_), "recording");
    must(cudaEventSynchronize(end_), "waiting");
    float ms = 0;
    must(cudaEventElapsedTime(&ms, begin_, end_), "timing");
    return static_cast<double>(ms);
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

cudaGraphExec_t capture(const Stream& stream, const Call& call, int calls) {
  must(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "capturing");
  for (int i = 0; i < calls; ++i) must(call(stream.get(), i), "a call inside a graph");
  cudaGraph_t graph = nullptr;
  must(cudaStreamEndCapture(stream.get(), &graph), "ending the capture");
  cudaGraphExec_t exec = nullptr;
  must(cudaGraphInstantiate(&exec, graph, 0), "making a graph");
  must(cudaGraphDestroy(graph), "freeing a graph");
  return exec;
}

}  // namespace

Times measure(const Call& call, const Effort& effort) {
  Stream stream;
  for (int i = 0; i < 2; ++i) must(call(stream.get(), i), "the first calls");
  must(cudaStreamSynchronize(stream.get()), "the first calls' work");
  const double once = stream.time([&] { must(call(stream.get(), 0), "a call"); });
  const int calls =
      std::clamp(static_cast<int>(effort.sample_ms / std::max(once, 1e-3)), 1, effort.max_calls);
  const cudaGraphExec_t graph = capture(stream, call, calls);
  std::vector<double> samples;
  for (int i = 0; i < effort.samples + 1; ++i) {
    const double ms = stream.time([&] { must(cudaGraphLaunch(graph, stream.get()), "replaying"); });
    if (i > 0) samples.push_back(ms * 1e3 / calls);  // the first replay uploads the graph
  }
  must(cudaGraphExecDestroy(graph), "freeing a graph");
  std::sort(samples.begin(), samples.end());
  return {samples[samples.size() / 2], samples.front(), samples.back()};
}

int copies_to_miss_l2(std::size_t bytes) {
  cudaDeviceProp properties = {};
  must(cudaGetDeviceProperties(&properties, 0), "asking what the GPU is");
  const auto l2 = static_cast<std::size_t>(std::max(properties.l2CacheSize, 1 << 20));
  return static_cast<int>(
      std::clamp<std::size_t>(3 * l2 / std::max<std::size_t>(bytes, 1) + 1, 1, 64));
}

Ceilings measure_ceilings(std::size_t bytes, const Effort& effort) {
  const DeviceMemory a(bytes), b(bytes);
  const auto size = static_cast<double>(bytes);
  const Times read =
      measure([&](cudaStream_t stream,
                  int i) { return read_all(stream, (i % 2 == 0 ? a : b).as<void>(), bytes); },
              effort);
  const Times copy = measure(
      [&](cudaStream_t stream, int i) {
        const bool back = i % 2 != 0;
        return cudaMemcpyAsync((back ? a : b).as<void>(), (back ? b : a).as<void>(), bytes,
                               cudaMemcpyDeviceToDevice, stream);
      },
      effort);
  const Ceilings ceilings{size / read.median_us / 1e3, 2 * size / copy.median_us / 1e3};
  Line("cuda_ceiling")
      .add("bytes", size)
      .add("read_gb_s", ceilings.read_gb_s)
      .add("copy_gb_s", ceilings.copy_gb_s);
  return ceilings;
}

std::string gpu_name() {
  cudaDeviceProp properties = {};
  must(cudaGetDeviceProperties(&properties, 0), "asking what the GPU is");
  return properties.name;
}

Line::Line(const std::string& bench) : text_("{\"bench\": \"" + bench + "\"") {}
Line::~Line() {
  std::printf("%s}\n", text_.c_str());
  std::fflush(stdout);
}
Line& Line::add(const char* key, double value) {
  char number[64];
  std::snprintf(number, sizeof number, "%.6g", value);
  text_ += std::string(", \"") + key + "\": " + number;
  return *this;
}
Line& Line::add(const char* key, const std::string& value) {
  text_ += std::string(", \"") + key + "\": \"" + value + "\"";
  return *this;
}
Line& Line::add(const Times& times) {
  return add("us", times.median_us).add("us_min", times.least_us).add("us_max", times.most_us);
}

int run_with_options(int argc, char** argv, const char* usage,
                     const std::function<int(bool tiny, const std::string& only)>& run) {
  bool tiny = false;
  std::string only;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--tiny") == 0) {
      tiny = true;
    } else if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      only = argv[++i];
    } else {
      std::fprintf(stderr, "usage: %s\n", usage);
      return 64;
    }
  }
  return run(tiny, only);
}

}  // namespace quire::bench
