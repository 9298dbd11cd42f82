// This rank's stream to the coordinator: dials, presents the rank, hands out what arrives in order,
// sends results, and beats its heart from a thread that is not the compute thread. gRPC and the
// generated messages stay inside link.cpp, attach_messages.h and stream.h.
//
// A link breaks once, for one reason (stream ended, silence longer than the lease, refusal), and
// stays broken: on_broken runs, and next() returns the reason as soon as it is called.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/step.h"
#include "common/tls.h"

namespace quire {

// Whom to dial.
struct CoordinatorAddress {
  std::string host_port;
  TlsPem tls;            // without a certificate: in the clear
  std::string tls_name;  // in its certificate; empty: the host that is dialled
};

// Hello, see proto/fleet.proto.
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
  bool one_answer = false;
};

// Welcome, see proto/fleet.proto.
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

struct PlanMessage {
  std::string bytes;  // a serialised StepPlan
};
struct DrainMessage {
  std::uint64_t saved_prefixes = 0;
};
using Event = std::variant<PlanMessage, DrainMessage>;

class Link {
 public:
  // Dials `to` and presents this rank, again and again with a growing pause for as long as
  // nobody answers, at most `patience`; then waits to be admitted with the rest of the group, for
  // as long as the stream holds. FailedPrecondition: refused, with the coordinator's reason.
  // Unavailable: nobody answered in time. Aborted: the coordinator ended what was to be the epoch.
  // Unauthenticated: it is not who we trust. Cancelled: drained instead.
  static absl::StatusOr<std::unique_ptr<Link>> attach(const CoordinatorAddress& to,
                                                      const Introduction& introduction,
                                                      absl::Duration patience);
  ~Link();

  const Admission& admission() const;
  // Called once, from some thread, when the link breaks; at once if it is broken already.
  void on_broken(std::function<void()> callback);

  // The stream ended without a word: the coordinator is gone, and its next life may take us in.
  bool coordinator_lost() const;

  // Blocks for the next message. Unavailable (the coordinator is lost) / DeadlineExceeded (lease) /
  // Aborted (it ended the epoch) / FailedPrecondition.
  absl::StatusOr<Event> next();
  // The same, if it is there already.
  absl::StatusOr<std::optional<Event>> poll();

  // Rank 0 makes the id; the coordinator sends it to every rank of the epoch. DeadlineExceeded: it
  // did not come within `patience`; Cancelled: Drain came instead; else as next().
  void send_collective_id(const std::string& id);
  absl::StatusOr<std::string> await_collective_id(absl::Duration patience);

  void send_result(const StepResult& result);
  // What heartbeats report from now on; `now` sends one at once.
  void confirm(StepId step, std::uint64_t plan_digest, bool now);
  void report_error(StepId step, const std::string& message);
  // Sends what is queued, closes our side and waits (briefly) for the coordinator to close its own.
  void finish();

 private:
  class Impl;
  explicit Link(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
