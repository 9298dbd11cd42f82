// What the tests of the ops share: devices by name, device buffers, activations read back as
// floats, and one attention scenario that can be run in any schedule of steps.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"

namespace quire::test {

// "reference", "avx512" or "avx2"; null where this processor cannot run it.
std::unique_ptr<Device> open_backend(const std::string& name, int num_threads = 2,
                                     const std::string& dtype = "auto");
// The CPU paths this processor has.
std::vector<std::string> cpu_backends();

std::vector<float> random_floats(std::size_t count, std::uint32_t seed, float scale = 1.0f);

// Memory of a device, copied to and from the host.
template <class T>
class Buffer {
 public:
  Buffer(Device& device, std::size_t count) : device_(device), count_(count) {
    auto memory = device.allocate(count * sizeof(T), "a test buffer");
    EXPECT_TRUE(memory.ok()) << memory.status();
    data_ = static_cast<T*>(*memory);
  }
  Buffer(Device& device, const std::vector<T>& values) : Buffer(device, values.size()) {
    device.copy(data_, values.data(), values.size() * sizeof(T));
    EXPECT_TRUE(device.wait().ok());
  }
  // Every byte 0xff: NaN, so that whatever is not written is noticed.
  void poison() {
    const std::vector<std::byte> bytes(count_ * sizeof(T), std::byte{0xff});
    device_.copy(data_, bytes.data(), bytes.size());
    EXPECT_TRUE(device_.wait().ok());
  }
  ~Buffer() { device_.free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return data_; }
  // Ends what is enqueued.
  std::vector<T> read() const {
    std::vector<T> values(count_);
    device_.copy(values.data(), data_, count_ * sizeof(T));
    EXPECT_TRUE(device_.wait().ok());
    return values;
  }

 private:
  Device& device_;
  std::size_t count_;
  T* data_ = nullptr;
};

// An activation and its memory, filled with 0xff so that whatever is not written is noticed.
class ActivationBuffer {
 public:
  ActivationBuffer(Device& device, ActivationLayout layout, int rows, int columns);

  const Activation& get() const { return activation_; }
  // [T][K], dequantized.
  std::vector<float> floats() const;
  // All bytes of a row, padding included.
  std::vector<std::byte> row_bytes(int row) const;
  // Expects the padding of every row to be zero and the sums of a kQ8 row to be those of its
  // values. CPU layouts only.
  void check_padding() const;

 private:
  bool is_reference_;
  Buffer<std::byte> bytes_;
  Activation activation_;
};

// Expects |actual - expected| <= absolute + relative * |expected| everywhere.
void expect_near(const std::vector<float>& actual, const std::vector<float>& expected,
                 float absolute, float relative);

// A few sequences with random q, k and v, the part of a model's heads a rank may hold, and an arena
// whose unwritten bytes are NaN and whose blocks are handed out in a scrambled order. In place of
// blocks that lie before what a step's tokens see of a row, its table names one of NaN bytes.
struct AttentionCase {
  std::string name;
  int num_heads = 1;  // local
  int num_kv_heads = 1;
  int head_dim = 64;
  int group_heads = 1;
  int first_head = 0;
  int first_kv_head = 0;
  int block_size = 16;
  int rope_dims = 64;
  bool interleaved = false;
  DType dtype = DType::kF32;
  int window = 0;
  float soft_cap = 0.0f;
  std::vector<int> lengths = {};  // of the sequences
};

// One step: how many tokens each sequence is granted (0 = not in the batch).
using Step = std::vector<int>;
// Everything at once; one token of each at a time; chunks of n.
std::vector<Step> whole(const AttentionCase& c);
std::vector<Step> chunked(const AttentionCase& c, int tokens);

// Runs rope_store and attention in this schedule. Result: [sequence][position] -> bytes of the
// output row in `layout`, or as floats.
struct AttentionRun {
  std::vector<std::vector<std::vector<std::byte>>> bytes;
  std::vector<std::vector<std::vector<float>>> floats;
};
AttentionRun run_attention(Device& device, const AttentionCase& c, const std::vector<Step>& steps,
                           ActivationLayout layout);

// Blocks copied and swapped on `device`: what was asked for moved, and nothing else.
void check_block_copies(Device& device);

}  // namespace quire::test
