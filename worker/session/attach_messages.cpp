// Field by field; what comes is checked before it is used.
#include "worker/session/attach_messages.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "common/wire.h"

namespace quire {
namespace {

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

}  // namespace

v1::Up hello_message(const Introduction& in) {
  v1::Up up;
  v1::Hello& hello = *up.mutable_hello();
  hello.set_protocol(wire::kProtocolVersion);
  hello.set_instance_id(in.instance_id);
  hello.set_rank(static_cast<std::uint32_t>(in.rank));
  hello.set_world(static_cast<std::uint32_t>(in.world));
  hello.set_host(host_name());
  hello.set_pid(static_cast<std::uint64_t>(::getpid()));
  hello.set_build(QUIRE_VERSION);
  hello.set_model_hash(in.model_hash);
  hello.set_numerics_id(in.numerics_id);
  hello.set_layout_digest(in.layout_digest);
  hello.set_kv_capacity_blocks(in.kv_capacity_blocks);
  hello.set_kv_block_bytes(in.kv_block_bytes);
  hello.set_weight_bytes(in.weight_bytes);
  hello.set_device(in.device);
  hello.set_secret(in.secret);
  hello.set_collective(in.collective);
  hello.set_host_blocks(in.host_blocks);
  hello.set_saved_prefixes(in.saved_prefixes);
  hello.set_last_epoch(in.last_epoch);
  hello.set_one_answer(in.one_answer);
  v1::KvGroupSpec& group = *hello.add_kv_groups();
  group.set_k_dim(static_cast<std::uint32_t>(in.kv_group.k_dim));
  group.set_v_dim(static_cast<std::uint32_t>(in.kv_group.v_dim));
  group.set_window(static_cast<std::uint32_t>(in.kv_group.window));
  group.set_num_layers(static_cast<std::uint32_t>(in.kv_group.num_layers));
  group.set_dtype(in.kv_dtype);
  group.set_local_heads(static_cast<std::uint32_t>(in.kv_local_heads));
  group.set_replicated(in.kv_replicated);
  return up;
}

absl::StatusOr<Admission> read_welcome(const v1::Welcome& in) {
  Admission out;
  out.epoch = in.epoch();
  out.nonce = in.nonce();
  out.keep_saved = in.keep_saved();
  struct Field {
    const char* name;
    std::uint32_t value;
    int* out;
    std::uint32_t low, high;
  };
  const Field fields[] = {
      {"num_blocks", in.num_blocks(), &out.num_blocks, 1, 1u << 30},
      {"block_size", in.block_size(), &out.block_size, 1, 1024},
      {"max_num_seqs", in.max_num_seqs(), &out.max_num_seqs, 1, 1u << 16},
      {"max_num_batched_tokens", in.max_num_batched_tokens(), &out.max_num_batched_tokens, 1,
       1u << 20},
      {"max_model_len", in.max_model_len(), &out.max_model_len, 1, 1u << 26},
      {"sampling_rank", in.sampling_rank(), &out.sampling_rank, 0, 1u << 16},
      {"heartbeat_ms", in.heartbeat_ms(), &out.heartbeat_ms, 1, 60000},
      {"lease_ms", in.lease_ms(), &out.lease_ms, 1, 3600000},
      {"host_blocks", in.host_blocks(), &out.host_blocks, 0, 1u << 30},
  };
  for (const Field& field : fields) {
    if (field.value < field.low || field.value > field.high) {
      return absl::FailedPreconditionError(
          absl::StrCat("the coordinator's Welcome has `", field.name, "` = ", field.value,
                       ", outside [", field.low, ", ", field.high, "]"));
    }
    *field.out = static_cast<int>(field.value);
  }
  return out;
}

}  // namespace quire
