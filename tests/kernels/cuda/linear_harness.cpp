#include "tests/kernels/cuda/linear_harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "kernels/formats/half.h"
#include "kernels/formats/table.h"
#include "tests/kernels/stored_matrix.h"

namespace quire::test {
namespace {

constexpr std::size_t at(int a, int stride, int b = 0) {
  return static_cast<std::size_t>(a) * static_cast<std::size_t>(stride) +
         static_cast<std::size_t>(b);
}

float through_bf16(float x) {
  return to_float(to_bf16(x));
}

}  // namespace

DeviceBytes::DeviceBytes(std::size_t bytes) {
  EXPECT_EQ(cudaMalloc(&data_, bytes), cudaSuccess);
  EXPECT_EQ(cudaMemset(data_, 0xff, bytes), cudaSuccess);
}
DeviceBytes::DeviceBytes(const void* from, std::size_t bytes) : DeviceBytes(bytes) {
  EXPECT_EQ(cudaMemcpy(data_, from, bytes, cudaMemcpyHostToDevice), cudaSuccess);
}
DeviceBytes::~DeviceBytes() {
  EXPECT_EQ(cudaFree(data_), cudaSuccess);
}
void DeviceBytes::read(void* to, std::size_t bytes) const {
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(to, data_, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
}

std::vector<float> random_normals(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& v : x) v = normal(random);
  return x;
}

std::string LinearCase::name() const {
  return std::string(traits(format).name) +
         (layout == ActivationLayout::kF32 ? " x f32, n" : " x bf16, n") + std::to_string(rows) +
         " k" + std::to_string(columns) + " m" + std::to_string(tokens) + " outputs " +
         std::to_string(outputs.size());
}

LinearProblem::LinearProblem(const LinearCase& c, unsigned seed) : case_(c) {
  const StoredMatrix stored(c.format, c.rows, c.columns, seed, c.first_column);
  weights_ = stored.values;
  const auto bytes = cuda::packed_bytes(c.format, c.rows, c.columns, c.first_column);
  std::vector<std::byte> packed(bytes, std::byte{0xff});
  int first = 0;
  for (const MatrixPart& part : stored.parts()) {
    EXPECT_TRUE(
        cuda::pack_rows(c.format, c.columns, c.first_column, part, first, c.rows, packed.data()));
    first += part.rows;
  }
  packed_ = std::make_unique<DeviceBytes>(packed.data(), packed.size());
  matrix_ = {c.format, c.layout, c.rows, c.columns, c.outputs, packed_->data(), c.first_column};
  if (matrix_.outputs.empty()) matrix_.outputs = {{0, c.columns}};

  input_ = random_normals(at(c.tokens, c.columns), seed + 1);
  if (c.layout == ActivationLayout::kBf16) {
    std::transform(input_.begin(), input_.end(), input_.begin(), through_bf16);
  }
  send_input();
  if (!c.bias) return;
  bias_ = random_normals(at(c.rows, 1), seed + 2);
  device_bias_ = std::make_unique<DeviceBytes>(bias_.data(), bias_.size() * sizeof(float));
}

void LinearProblem::set_input(int token, int column, float value) {
  input_[at(token, case_.columns, column)] = value;
  send_input();
}

void LinearProblem::send_input() {
  if (case_.layout == ActivationLayout::kF32) {
    device_input_ = std::make_unique<DeviceBytes>(input_.data(), input_.size() * sizeof(float));
    return;
  }
  std::vector<Bf16> halves(input_.size());
  std::transform(input_.begin(), input_.end(), halves.begin(), to_bf16);
  device_input_ = std::make_unique<DeviceBytes>(halves.data(), halves.size() * sizeof(Bf16));
}

std::size_t LinearProblem::out_floats(int count) const {
  return matrix_.outputs.size() * at(count, case_.rows + case_.gap);
}

cuda::LinearJob LinearProblem::job(int first, int count, void* out) const {
  const void* in = static_cast<const std::byte*>(device_input_->data()) +
                   at(first, case_.columns) * (case_.layout == ActivationLayout::kF32 ? 4 : 2);
  cuda::LinearJob job = cuda::make_job(matrix_, in, count);
  job.bias = case_.bias ? static_cast<const float*>(device_bias_->data()) : nullptr;
  job.out = static_cast<float*>(out);
  job.out_stride = at(case_.rows + case_.gap, 1);
  job.out_subtree_stride = at(count, case_.rows + case_.gap);
  return job;
}

std::vector<float> LinearProblem::run(
    const std::function<cudaError_t(const cuda::LinearJob&)>& kernel, int first, int count) const {
  const DeviceBytes out(out_floats(count) * sizeof(float));
  EXPECT_EQ(kernel(job(first, count, out.data())), cudaSuccess) << case_.name();
  return gather(out, count);
}

std::vector<float> LinearProblem::run(cuda::Linear& linear, int first, int count) const {
  const auto kernel = [&](const cuda::LinearJob& job) {
    const Activation in{const_cast<void*>(job.in), case_.layout, count, case_.columns};
    return linear.run(nullptr, matrix_, in, job.bias, job.out, job.out_stride,
                      job.out_subtree_stride);
  };
  return run(kernel, first, count);
}

std::vector<float> LinearProblem::gather(const DeviceBytes& out, int count) const {
  std::vector<float> raw(out_floats(count));
  out.read(raw.data(), raw.size() * sizeof(float));
  std::vector<float> result;
  const int stride = case_.rows + case_.gap;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (i % at(stride, 1) < at(case_.rows, 1)) {
      result.push_back(raw[i]);
    } else if (!std::isnan(raw[i])) {
      ADD_FAILURE() << case_.name() << ": wrote between rows, float " << i;
    }
  }
  return result;
}

double LinearProblem::worst_error(const std::vector<float>& result, bool rounded) const {
  double worst = 0;
  std::size_t i = 0;
  for (const cuda::Columns& range : matrix_.outputs) {
    for (int t = 0; t < case_.tokens; ++t) {
      for (int n = 0; n < case_.rows; ++n, ++i) {
        double sum = case_.bias ? bias_[at(n, 1)] : 0.0;
        double size = std::fabs(sum) + 1e-30;
        for (int k = range.begin; k < range.end; ++k) {
          const float w = weights_[at(n, case_.columns, k)];
          const double product =
              double{rounded ? through_bf16(w) : w} * double{input_[at(t, case_.columns, k)]};
          sum += product;
          size += std::fabs(product);
        }
        const double error = std::fabs(double{result.at(i)} - sum) / size;
        if (!(error <= worst)) worst = error;  // NaN is worse than anything
        if (std::isnan(error)) return error;
      }
    }
  }
  EXPECT_EQ(i, result.size());
  return worst;
}

std::vector<float> LinearProblem::row(int n) const {
  const auto first = weights_.begin() + static_cast<std::ptrdiff_t>(at(n, case_.columns));
  return {first, first + case_.columns};
}

}  // namespace quire::test
