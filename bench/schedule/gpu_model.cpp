#include "bench/schedule/gpu_model.h"

#include <algorithm>

namespace quire::bench {

double GpuModel::step_seconds(const GpuWork& work) const {
  const double weights = (body_parameters + head_parameters) * bytes_per_parameter;
  const double product_flops = 2 * (body_parameters * work.tokens + head_parameters * work.picks);
  const double products = std::max(weights / (bandwidth * weight_efficiency),
                                   product_flops / (flops * gemm_efficiency));
  const double kv = work.context_tokens * kv_bytes_per_token / (bandwidth * kv_efficiency);
  const double attention = attention_flops_per_pair * work.pairs / attention_flops;
  const double block_bytes = 16 * kv_bytes_per_token;
  const double moved = work.copies * 2 * block_bytes / (bandwidth * weight_efficiency) +
                       work.swaps * block_bytes / host_link_bytes;
  return step_overhead_s + products + kv + attention + moved + work.picks * pick_s;
}

int GpuModel::num_blocks(int block_size) const {
  // The embedding lies in memory too.
  const double weights = (body_parameters + 2 * head_parameters) * bytes_per_parameter;
  const double free = memory_bytes * memory_share - weights;
  return static_cast<int>(free / (kv_bytes_per_token * block_size));
}

std::vector<std::pair<std::string, std::string>> GpuModel::sources() const {
  return {
      {"H100 SXM: 3.35 TB/s HBM3, 989 TFLOP/s bf16 dense, 80e9 bytes", "NVIDIA's data sheet"},
      {"Llama-3-8B: 7.50 G parameters in products (15.0 GB bf16), KV 131,072 bytes a token",
       "config.json: 32 layers, 8 KV heads of 128, vocabulary 128,256"},
      {"weights stream at 0.80 of HBM (5.6 ms a step at least)",
       "between gpt-fast's 0.68 (A100) and the Hazy megakernel's 0.78 (H100), vLLM V1's step of "
       "'as low as 5 ms', and this project's goal of 0.80"},
      {"products at 0.60 of bf16 peak", "0.65-0.70 reached in prefill on A100; the goal here"},
      {"KV is read at 0.65 of HBM", "ONNX Runtime PR 21414: 0.66 at 64 rows x 512 tokens, H100"},
      {"prefill attention at 370 TFLOP/s", "FlashAttention-2 on H100: 0.35-0.40 of peak"},
      {"0.3 ms between steps", "vLLM issue 10634: 0.2-0.3 ms wanted of asynchronous scheduling"},
      {"1 us per sampled row", "estimate: four passes over 513 KB of fp32 logits"},
      {"offload at 50 GB/s", "estimate: PCIe 5 x16 has 64 GB/s each way"},
      {"100 us per message each way", "estimate; hidden while two steps are in flight"},
      {"blocks: 0.9 x 80 GB less weights; activations not counted", "estimate"},
  };
}

}  // namespace quire::bench
