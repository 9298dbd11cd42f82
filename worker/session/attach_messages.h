// What a rank says of itself when it attaches, and what the coordinator answers; proto/fleet.proto
// explains the fields.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/step.h"
#include "fleet.pb.h"

namespace quire {

// Hello.
struct Introduction {
  std::string instance_id;
  int rank = 0;
  int world = 1;
  std::uint64_t model_hash = 0;
  std::string numerics_id;
  std::string layout_digest;
  std::uint64_t kv_capacity_blocks = 0;
  std::uint64_t kv_block_bytes = 0;
  std::uint64_t weight_bytes = 0;
  std::string device;
  std::string secret;
  KvGroup kv_group;
  std::string kv_dtype;
  int kv_local_heads = 0;
  bool kv_replicated = false;
  std::string collective;
  std::uint64_t host_blocks = 0;
  std::uint64_t saved_prefixes = 0;
  EpochId last_epoch = 0;  // that this process was in; 0: none
};

// Welcome.
struct Admission {
  EpochId epoch = 0;
  std::uint64_t nonce = 0;  // where the digest of this epoch's plans begins
  int num_blocks = 0;
  int block_size = 0;
  int max_num_seqs = 0;
  int max_num_batched_tokens = 0;
  int max_model_len = 0;
  int sampling_rank = 0;
  int heartbeat_ms = 0;
  int lease_ms = 0;
  int host_blocks = 0;
  bool keep_saved = false;
};

v1::Up hello_message(const Introduction& in);
// FailedPrecondition: a field is outside what it may be.
absl::StatusOr<Admission> read_welcome(const v1::Welcome& in);

}  // namespace quire
