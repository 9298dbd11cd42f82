// A client's wish and where to deliver. The api makes it, the engine owns it until it is finished.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/ids.h"
#include "common/sampling_params.h"
#include "common/step.h"
#include "coordinator/schedule/beam_params.h"

namespace quire {

enum class FinishReason { kNone, kStop, kLength, kCancelled, kDeadline, kError };

// What one choice of a request gained. Delivered in order, one at a time; delivering must not
// block.
struct OutputDelta {
  RequestId request = 0;
  int choice = 0;
  int num_cached_tokens = 0;  // of the prompt, not computed for this request; on its first delta
  std::vector<TokenId> tokens;
  std::vector<std::vector<TokenLogprob>> logprobs;  // per token, if asked for
  FinishReason finish = FinishReason::kNone;        // set on the last delta of the choice
  TokenId stop_token = -1;  // the eos or stop token id that ended it: also the last of `tokens`
  std::string error;        // with kError
  std::string error_code;   // what clients may tell it by; empty: internal_error

  // `next` is of the same choice and comes after this.
  void append(const OutputDelta& next);
  // Of its tokens those from `from` on, at most `count`, as a delta that ends nothing.
  OutputDelta part(std::size_t from, std::size_t count) const;
  void drop_first(std::size_t count);  // of its tokens, or as many as there are
  // The same in order, none of more than `most` tokens; the last one says how it ends.
  static std::vector<OutputDelta> parts_of(OutputDelta whole, int most);
};
using DeliverFn = std::function<void(OutputDelta)>;

// The past of a request that begins: an empty delta for each of its choices.
std::vector<OutputDelta> nothing_yet(RequestId request, int n);

// The call that a request belongs to, as far as it outlives this process: enough to answer it again
// under the same name.
struct AnswerRecord {
  std::string name;          // what its client resumes by
  std::string endpoint;      // which door it came through
  std::string body;          // as it came
  std::string key;           // Idempotency-Key; empty: none
  std::string tenant;        // its name; empty where there are no tenants
  std::int64_t created = 0;  // unix seconds
  int num_prompts = 1;       // a Request each
};

struct Request {
  RequestId id = 0;             // given by Engine::submit
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams params;
  // Choices; choice i draws with sample_index i. With beams: the n best, delivered whole and best
  // first when the search has ended; n <= beams.width.
  int n = 1;
  BeamParams beams;
  int tenant = 0;    // index into the tenants that the server was given; 0 where there are none
  int priority = 0;  // smaller is earlier; only with --scheduling-policy priority
  std::string cache_salt;  // prompts share cached blocks only under the same salt
  absl::Time arrival = absl::InfinitePast();  // set by Engine::submit
  absl::Time deadline = absl::InfiniteFuture();
  std::shared_ptr<const AnswerRecord> answer;  // null: it is not journaled
  int place = 0;                               // of the answer's prompts
  DeliverFn deliver;
};

// What is left of a call when the coordinator has died: its requests and what they had gained.
struct SavedRequest {
  Request request;                // without `deliver`
  std::vector<OutputDelta> past;  // [choice], from the beginning; `finish` where it has ended
  std::uint64_t numerics = 0;     // of the group that computed the last of it; 0: unknown
  bool ended() const;
};
struct SavedAnswer {
  std::shared_ptr<const AnswerRecord> record;
  std::vector<SavedRequest> requests;  // [place]
};

}  // namespace quire
