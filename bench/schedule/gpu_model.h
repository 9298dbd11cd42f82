// How long a step takes on a GPU that is not here: an NVIDIA H100 SXM 80 GB with Llama-3-8B in
// bf16. Rooflines with achieved efficiencies; every constant has its source beside it. It is a
// model: good for comparing schedules with each other, no measurement of this server.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace quire::bench {

// What one plan asks of the GPU, summed over its rows.
struct GpuWork {
  int rows = 0;
  int tokens = 0;             // granted
  int picks = 0;              // rows of logits that are sampled
  double context_tokens = 0;  // KV entries read: each row's context once
  double pairs = 0;           // query-key pairs of rows of more than one token
  int copies = 0;             // blocks copied on the device
  int swaps = 0;              // blocks between device and host
};

struct GpuModel {
  // --- the model: Llama-3-8B, bf16
  double body_parameters = 6.98e9;   // 32 layers; 7.50 G in products less the vocabulary's
  double head_parameters = 0.525e9;  // 128,256 x 4,096; the embedding is as large again, not read
  double bytes_per_parameter = 2;
  double kv_bytes_per_token = 131072;                 // 32 layers x 2 x 8 KV heads x 128 x 2 bytes
  double attention_flops_per_pair = 4.0 * 32 * 4096;  // QK and PV, over 32 layers of 32 heads
  // --- the GPU
  double memory_bytes = 80e9;
  double memory_share = 0.9;        // gpu_memory_utilization's default
  double bandwidth = 3.35e12;       // HBM3, bytes/s
  double weight_efficiency = 0.80;  // 178 tok/s of one stream; a megakernel reaches 0.78
  double kv_efficiency = 0.65;      // paged decode attention, 64 rows x 512 tokens
  double flops = 989e12;            // bf16, dense
  double gemm_efficiency = 0.60;    // prefill; 0.65-0.70 measured on A100
  double attention_flops = 370e12;  // prefill attention of the mma.sync kind
  double host_link_bytes = 50e9;    // PCIe 5 x16, as it is usually reached
  // --- the host
  double step_overhead_s = 0.3e-3;  // gap between steps with asynchronous scheduling
  double pick_s = 1e-6;             // some passes over 513 KB of logits
  double message_s = 100e-6;        // coordinator to worker, and back: each way

  double step_seconds(const GpuWork& work) const;
  int num_blocks(int block_size) const;  // what memory_share leaves beside the weights
  // Each constant in words, with its source.
  std::vector<std::pair<std::string, std::string>> sources() const;
};

}  // namespace quire::bench
