// The runtime functions: order on streams, events, graphs, memory, and what is refused.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cuda_emulation/control.h"
#include "tests/cuda_emulation/device_array.h"
#include "tests/cuda_emulation/guard.h"
#include "tests/cuda_emulation/sample_kernels.h"

namespace quire {
namespace {

using cuda_emulation::DeviceArray;
using cuda_emulation::StreamMode;

class Runtime : public testing::TestWithParam<StreamMode> {
 protected:
  void SetUp() override {
    cuda_emulation::set_stream_mode(GetParam());
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaStreamCreateWithFlags(&other_, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess);
    ASSERT_EQ(cudaEventCreateWithFlags(&back_, cudaEventDisableTiming), cudaSuccess);
  }
  void TearDown() override {
    EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
    EXPECT_EQ(cudaStreamDestroy(other_), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(event_), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(back_), cudaSuccess);
    cuda_emulation::set_stream_mode(StreamMode::kEager);
    cudaGetLastError();
  }
  // x = (x + y) * 2 on two streams: the sum on the other one.
  void issue(float* x, const float* y, int n) {
    ASSERT_EQ(cudaEventRecord(event_, stream_), cudaSuccess);
    ASSERT_EQ(cudaStreamWaitEvent(other_, event_, 0), cudaSuccess);
    ASSERT_EQ(samples::add(x, y, n, other_), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(back_, other_), cudaSuccess);
    ASSERT_EQ(cudaStreamWaitEvent(stream_, back_, 0), cudaSuccess);
    ASSERT_EQ(samples::scale(x, n, 2.0f, stream_), cudaSuccess);
  }
  cudaStream_t stream_ = nullptr;
  cudaStream_t other_ = nullptr;
  cudaEvent_t event_ = nullptr;
  cudaEvent_t back_ = nullptr;
};
INSTANTIATE_TEST_SUITE_P(Modes, Runtime, testing::Values(StreamMode::kEager, StreamMode::kDeferred),
                         [](const auto& mode) {
                           return mode.param == StreamMode::kEager ? "Eager" : "Deferred";
                         });

TEST_P(Runtime, WorkHappensInOrderAcrossStreams) {
  DeviceArray<float> x(std::vector<float>(200, 1.0f));
  DeviceArray<float> y(std::vector<float>(200, 3.0f));
  issue(x.data(), y.data(), 200);
  issue(x.data(), y.data(), 200);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  for (const float value : x.get()) ASSERT_EQ(value, ((1.0f + 3.0f) * 2 + 3.0f) * 2);
}

TEST_P(Runtime, AGraphReplaysWhatEagerCallsDo) {
  DeviceArray<float> x(std::vector<float>(200, 1.0f));
  DeviceArray<float> y(std::vector<float>(200, 3.0f));
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  issue(x.data(), y.data(), 200);
  cudaStreamCaptureStatus status;
  ASSERT_EQ(cudaStreamIsCapturing(other_, &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusActive);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  ASSERT_EQ(cudaStreamIsCapturing(other_, &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusNone);
  size_t nodes = 0;
  ASSERT_EQ(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
  EXPECT_EQ(nodes, 2u);
  for (const float value : x.get()) ASSERT_EQ(value, 1.0f);  // nothing ran yet

  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  DeviceArray<float> eager(std::vector<float>(200, 1.0f));
  for (int run = 0; run < 3; ++run) {
    ASSERT_EQ(cudaGraphLaunch(exec, stream_), cudaSuccess);
    issue(eager.data(), y.data(), 200);
  }
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(x.get(), eager.get());
  EXPECT_EQ(x.get()[0], 50.0f);
  ASSERT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
}

TEST_P(Runtime, WhatACaptureForbidsIsRefused) {
  DeviceArray<float> x(std::vector<float>(4, 1.0f));
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(samples::scale(x.data(), 4, 2.0f, stream_), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureInvalidated);

  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  void* pointer = nullptr;
  EXPECT_EQ(cudaMalloc(&pointer, 16), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureInvalidated);

  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event_, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(other_, event_, 0), cudaSuccess);
  ASSERT_EQ(samples::scale(x.data(), 4, 2.0f, other_), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event_), cudaErrorCapturedEvent);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorIllegalState);
  EXPECT_EQ(samples::scale(x.data(), 4, 2.0f, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(x.get()[0], 2.0f);
}

TEST_P(Runtime, PollingAnEventEnds) {
  DeviceArray<float> x(std::vector<float>(4, 1.0f));
  void* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 16), cudaSuccess);
  ASSERT_EQ(samples::scale(x.data(), 4, 3.0f, stream_), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(pinned, x.data(), 16, cudaMemcpyDeviceToHost, stream_), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event_, stream_), cudaSuccess);
  const bool early = static_cast<float*>(pinned)[0] == 3.0f;
  EXPECT_EQ(early, GetParam() == StreamMode::kEager);  // deferred: who does not wait sees it
  int polls = 0;
  while (cudaEventQuery(event_) == cudaErrorNotReady) ASSERT_LT(++polls, 100);
  EXPECT_EQ(static_cast<float*>(pinned)[0], 3.0f);
  ASSERT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_P(Runtime, PageableSourcesMayBeReusedAtOnce) {
  DeviceArray<float> x(1);
  float value = 5.0f;
  ASSERT_EQ(cudaMemcpyAsync(x.data(), &value, 4, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  value = 6.0f;
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(x.get()[0], 5.0f);
}

TEST_P(Runtime, TheDefaultStreamWaitsForBlockingStreamsOnly) {
  cudaStream_t blocking = nullptr;
  ASSERT_EQ(cudaStreamCreate(&blocking), cudaSuccess);
  DeviceArray<float> x(std::vector<float>(4, 1.0f));
  DeviceArray<float> y(std::vector<float>(4, 1.0f));
  ASSERT_EQ(samples::scale(x.data(), 4, 2.0f, blocking), cudaSuccess);
  ASSERT_EQ(samples::scale(y.data(), 4, 2.0f, stream_), cudaSuccess);
  std::vector<float> seen(8);
  ASSERT_EQ(cudaMemcpy(&seen[0], x.data(), 16, cudaMemcpyDeviceToHost), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(&seen[4], y.data(), 16, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(seen[0], 2.0f);
  EXPECT_EQ(seen[4], GetParam() == StreamMode::kEager ? 2.0f : 1.0f);
  EXPECT_EQ(y.get()[0], 2.0f);
  ASSERT_EQ(cudaStreamDestroy(blocking), cudaSuccess);
}

TEST_P(Runtime, HostFunctionsRunInOrderAndMayNotCallBack) {
  struct Seen {
    float* x;
    float value = 0;
    cudaError_t refused = cudaSuccess;
  };
  void* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 16), cudaSuccess);
  DeviceArray<float> x(std::vector<float>(4, 1.0f));
  Seen seen{static_cast<float*>(pinned)};
  ASSERT_EQ(samples::scale(x.data(), 4, 7.0f, stream_), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(pinned, x.data(), 16, cudaMemcpyDeviceToHost, stream_), cudaSuccess);
  ASSERT_EQ(cudaLaunchHostFunc(
                stream_,
                [](void* data) {
                  auto* s = static_cast<Seen*>(data);
                  s->value = s->x[0];
                  s->refused = cudaDeviceSynchronize();
                },
                &seen),
            cudaSuccess);
  ASSERT_EQ(samples::scale(x.data(), 4, 0.0f, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(seen.value, 7.0f);
  EXPECT_EQ(seen.refused, cudaErrorNotPermitted);
  ASSERT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_P(Runtime, CopiesThatLeaveTheirBuffersAreRefused) {
  DeviceArray<float> x(4);
  std::vector<float> host(8);
  EXPECT_EQ(cudaMemcpy(x.data(), host.data(), 20, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host.data(), x.data(), 16, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(x.data() + 1, 0, 16), cudaErrorInvalidValue);
  EXPECT_EQ(cudaPeekAtLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaFree(x.data() + 1), cudaErrorInvalidValue);
}

TEST_P(Runtime, MemoryIsCountedPerDevice) {
  size_t free_before = 0;
  size_t free_after = 0;
  size_t total = 0;
  cuda_emulation::set_device_memory(64 << 20);
  ASSERT_EQ(cudaMemGetInfo(&free_before, &total), cudaSuccess);
  EXPECT_EQ(total, size_t{64} << 20);
  {
    DeviceArray<char> part(1 << 20);
    ASSERT_EQ(cudaMemGetInfo(&free_after, &total), cudaSuccess);
    EXPECT_EQ(free_before - free_after, size_t{1} << 20);
    ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
    ASSERT_EQ(cudaMemGetInfo(&free_after, &total), cudaSuccess);
    EXPECT_EQ(free_after, total);
    ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
    void* pointer = nullptr;
    EXPECT_EQ(cudaMalloc(&pointer, 64 << 20), cudaErrorMemoryAllocation);
    EXPECT_EQ(pointer, nullptr);
  }
  ASSERT_EQ(cudaMemGetInfo(&free_after, &total), cudaSuccess);
  EXPECT_EQ(free_after, free_before);
  cuda_emulation::set_device_memory(256 << 20);
}

TEST_P(Runtime, LaunchesThatNoDeviceTakesAreRefused) {
  DeviceArray<float> x(4);
  EXPECT_EQ(samples::rms_norm(x.data(), x.data(), 1, 4, 1056, stream_),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(samples::rms_norm(x.data(), x.data(), 0, 4, 32, stream_),
            cudaErrorInvalidConfiguration);
  DeviceArray<uint16_t> a(1);
  // 48 KiB of dynamic shared memory and no more, unless asked for.
  EXPECT_EQ(samples::product_f16(a.data(), a.data(), x.data(), 1040, stream_),
            cudaErrorInvalidValue);
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  EXPECT_EQ(samples::scale(nullptr, 0, 1.0f, stream_), cudaErrorInvalidConfiguration);
  EXPECT_EQ(samples::scale(x.data(), 4, 1.0f, stream_), cudaErrorInvalidResourceHandle);
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(4), cudaErrorInvalidDevice);
  EXPECT_EQ(std::string(cudaGetErrorName(cudaErrorInvalidDevice)), "cudaErrorInvalidDevice");
}

TEST_P(Runtime, FreedMemoryIsGivenBack) {
  const size_t before = cuda_emulation::live_allocations();
  for (int i = 0; i < 200; ++i) {
    DeviceArray<float> x(1000);
    ASSERT_EQ(cuda_emulation::live_allocations(), before + 1);
  }
  EXPECT_EQ(cuda_emulation::live_allocations(), before);
}

}  // namespace
}  // namespace quire
