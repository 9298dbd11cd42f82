// A worker's life from a loaded rank to its end: attach, take the coordinator's limits, run plans
// in order, answer. One compute thread (the caller's); the link has its own.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/config.h"
#include "worker/runner/rank.h"
#include "worker/session/link.h"

namespace quire {

struct SessionOptions {
  CoordinatorAddress coordinator;
  std::string instance_id;
  std::string secret;
  int block_size = 16;  // offered; Welcome decides
  std::int64_t kv_cache_memory_bytes = 0;
  std::int64_t kv_offload_bytes = 0;  // 0: no offload store
  std::string kv_offload_path;        // folder; empty: the store is memory
  int max_num_seqs = 0;
  int max_model_len = 0;                        // already bounded by the model's
  absl::Duration patience = absl::Seconds(60);  // for a coordinator that does not answer
};

// Opens the rank's offload store, if it is to have one and has none yet.
//
// Where the coordinator is lost the rank keeps its weights, drops its KV cache and attaches again
// within the lease, to be in a new epoch.
//
// OK after Drain. Otherwise why it ended: FailedPrecondition (refused, wrong epoch, a gap in the
// steps), Aborted (the coordinator ended the epoch), Unavailable / DeadlineExceeded (coordinator or
// peer lost), others. Peers that wait in an exchange have been told to give up.
absl::Status run_session(Rank& rank, const SessionOptions& options);

}  // namespace quire
