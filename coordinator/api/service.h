// What the HTTP and the gRPC API share: the served model, one validation, one way from token ids to
// text. Both APIs turn what a client sent into a GenerationInput and hand it to prepare(), so no
// entry path lacks the checks of the other. Errors are sentences that begin with the field's name
// in backquotes ("`temperature` is 3; it must be in [0, 2]"); field_of() reads it back.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/model_spec.h"
#include "common/sampling_params.h"
#include "common/tenants.h"
#include "coordinator/engine/engine.h"
#include "coordinator/text/text.h"
#include "nlohmann/json_fwd.hpp"

namespace quire {

class Metrics;
class AnswerBook;

// The one model of this process; immutable after start.
struct ServedModel {
  std::string name;  // what clients write into `model`
  ModelSpec spec;
  Text text;
  std::vector<std::string> special_texts;  // of the special tokens, longest first
  std::int64_t created = 0;                // unix seconds of this process's start
  int max_model_len = 0;                   // tokens, prompt and answer together
  // No longer text can fit the context: it is refused before it is tokenized. 0 = no bound.
  std::size_t max_prompt_bytes = 0;
  int tensor_parallel_size = 1;
  std::string architecture;
};

// Takes what it needs out of the checkpoint. The name is --served-model-name, else the model's own.
absl::StatusOr<ServedModel> make_served_model(const EngineConfig& config, const ModelFile& file);

// What an endpoint needs; all of it outlives the servers.
struct Api {
  const EngineConfig* config = nullptr;
  const ServedModel* model = nullptr;
  Engine* engine = nullptr;
  Metrics* metrics = nullptr;                  // may be absent
  absl::Span<const TenantEntry> tenants = {};  // of --tenants; the engine has them in this order
  AnswerBook* book = nullptr;  // of answers that outlive their connections; may be absent
  bool is_journaled = false;   // what is submitted with a record survives this process
};

// A client's parameters before any check; absent means the default. Wide types, so that no value is
// bent by a conversion before it is checked. The two names are how the endpoint spells those
// fields, for messages.
struct GenerationInput {
  const char* prompt_name = "prompt";
  const char* max_tokens_name = "max_tokens";
  const char* deadline_ms_name = "deadline_ms";
  std::optional<double> temperature, top_p, min_p;
  std::optional<std::int64_t> top_k;
  std::optional<std::uint64_t> seed;       // absent: EngineConfig::seed, else random
  std::optional<std::int64_t> max_tokens;  // absent: what the context leaves
  std::vector<std::string> stop;
  std::vector<std::int64_t> stop_token_ids;
  bool ignore_eos = false;
  std::optional<double> presence_penalty, frequency_penalty, repetition_penalty;
  std::optional<std::int64_t> min_tokens;
  std::vector<std::pair<std::int64_t, double>> logit_bias;  // id, bias
  std::optional<std::vector<std::int64_t>> allowed_token_ids;
  std::optional<std::int64_t> logprobs;  // absent: none; 0: the sampled token's; k: and the k best
  std::int64_t n = 1;
  bool include_stop = false;  // keep the stop string in the text
  bool skip_special = true;   // leave special tokens out of the text
  bool stream = false;        // text is wanted as it comes

  // How it waits.
  std::optional<std::int64_t> priority;
  absl::Time arrival = steady_now();
  std::optional<double> timeout_s;          // from arrival; or
  std::optional<std::int64_t> deadline_ms;  // the same in milliseconds
  std::optional<std::string> cache_salt;

  // How its choices are found.
  std::optional<std::int64_t> best_of;
  bool use_beam_search = false;
  std::optional<double> length_penalty;
  std::optional<BeamParams::EarlyStopping> early_stopping;
};

// How the tokens of a choice become text.
struct TextOptions {
  std::vector<std::string> stop;
  bool include_stop = false;
  bool skip_special = true;
  int min_tokens = 0;  // what the first ones say ends nothing
};

// A checked request; the caller adds `tenant` and `deliver` and submits it.
struct Prepared {
  Request request;
  TextOptions text;
  // How many of request.n choices the client gets: less than all with best_of, see best_of.h.
  int num_returned = 1;
  bool hide_logprobs = false;  // they are there to choose by, not to be shown
};
// InvalidArgument naming the field, its value and what is allowed; OutOfRange when it is the
// model's context that is too short.
absl::StatusOr<Prepared> prepare(const Api& api, std::vector<TokenId> prompt,
                                 const GenerationInput& input);

// `field` is how the endpoint calls the prompt ("prompt", "text", "token_ids"), for messages.
absl::StatusOr<std::vector<TokenId>> encode_prompt(const ServedModel& model, absl::string_view text,
                                                   const char* field);
absl::StatusOr<std::vector<TokenId>> check_prompt_ids(const ServedModel& model,
                                                      const std::vector<std::int64_t>& ids,
                                                      const char* field);
// `messages` is an array of {role, content: string, ...}. Renders the model's chat template and
// encodes it. Text inside a message that spells a special token stays plain text.
absl::StatusOr<std::vector<TokenId>> encode_chat(const ServedModel& model,
                                                 const nlohmann::ordered_json& messages,
                                                 bool add_generation_prompt = true);

// NotFound unless `name` is empty or the served one.
absl::Status check_model(const ServedModel& model, absl::string_view name);
// Unavailable until a worker group is ready.
absl::Status check_ready(const Engine& engine);
// Whether new requests are taken: also while a lost group is replaced, for they wait for the next.
absl::Status check_open(const Engine& engine);

// "temperature" of a message that begins with "`temperature`"; empty if it begins otherwise.
std::string field_of(const absl::Status& status);

// "stop", "length", "cancelled", "deadline", "error"; empty for kNone.
const char* finish_reason_name(FinishReason reason);

// Who sends a request, by its bearer key: in constant time over SHA-256 digests, whichever key it
// is. With neither a key nor tenants everybody is tenant 0.
class ApiKeys {
 public:
  // With tenants `key` does not count.
  ApiKeys(absl::string_view key, absl::Span<const TenantEntry> tenants);
  bool required() const { return !digests_.empty(); }
  // The tenant's index (0 without tenants), or nothing: refuse. `authorization` is the whole header
  // or metadata value: "Bearer <key>".
  std::optional<int> tenant_of(absl::string_view authorization) const;

 private:
  std::vector<std::array<unsigned char, 32>> digests_;  // [tenant]
};

}  // namespace quire
