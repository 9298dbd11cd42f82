// Products on the CUDA kernels (over the emulation): a matrix as a checkpoint stores it, packed and
// in device memory; an input in either layout; the result as floats, and what it should be, in
// double precision.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/linear/job.h"

namespace quire::test {

// Device memory of exactly these bytes.
class DeviceBytes {
 public:
  explicit DeviceBytes(std::size_t bytes);
  DeviceBytes(const void* from, std::size_t bytes);
  ~DeviceBytes();
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  void* data() const { return data_; }
  void read(void* to, std::size_t bytes) const;

 private:
  void* data_ = nullptr;
};

// A random N x K matrix and T x K input, one product of them.
struct LinearCase {
  Format format = Format::kF32;
  ActivationLayout layout = ActivationLayout::kF32;
  int rows = 0;
  int columns = 0;
  int tokens = 0;
  std::vector<cuda::Columns> outputs = {};  // empty: one, all columns
  bool bias = false;
  int gap = 0;           // floats between the rows of the result
  int first_column = 0;  // of a superblock cut in two

  std::string name() const;
};

class LinearProblem {
 public:
  explicit LinearProblem(const LinearCase& c, unsigned seed = 1);

  const cuda::PackedMatrix& matrix() const { return matrix_; }
  // The job of tokens [first, first + count) into `out`.
  cuda::LinearJob job(int first, int count, void* out) const;

  // Results [output][token][row] of tokens [first, first + count). Fails the test where something
  // between the rows was written.
  std::vector<float> run(cuda::Linear& linear, int first, int count) const;
  std::vector<float> run(cuda::Linear& linear) const { return run(linear, 0, case_.tokens); }
  // The same by one kernel.
  std::vector<float> run(const std::function<cudaError_t(const cuda::LinearJob&)>& kernel,
                         int first, int count) const;

  // The largest |result - exact| / sum of |weight * input|; `rounded`: of weights rounded to bf16.
  double worst_error(const std::vector<float>& result, bool rounded = false) const;

  // Row `n`, decoded by kernels/formats, its factor included.
  std::vector<float> row(int n) const;

  // Changes one number of the input.
  void set_input(int token, int column, float value);

 private:
  std::vector<float> gather(const DeviceBytes& out, int count) const;
  std::size_t out_floats(int count) const;
  void send_input();

  LinearCase case_;
  std::vector<float> weights_;  // [N][K], decoded
  std::vector<float> input_;    // [T][K], as stored
  std::vector<float> bias_;
  cuda::PackedMatrix matrix_;
  std::unique_ptr<DeviceBytes> packed_, device_input_, device_bias_;
};

std::vector<float> random_normals(std::size_t count, unsigned seed);

}  // namespace quire::test
