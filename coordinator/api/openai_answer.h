// The way out of both generation endpoints: one JSON object at the end, or server-sent events. What
// differs between completions and chat is in a Dialect, a few functions.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "coordinator/api/event_id.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/http.h"
#include "coordinator/api/openai_params.h"
#include "coordinator/api/service.h"
#include "nlohmann/json.hpp"

namespace quire {

// One choice as the client gets to see it.
struct AnswerChoice {
  int index = 0;
  bool begun = false;                      // a chunk was sent
  std::string text;                        // whole answers only
  std::vector<TokenLogprobText> logprobs;  // whole answers only
  std::vector<TokenId> tokens;             // whole answers that carry ids
  int text_offset = 0;                     // characters of the tokens listed so far (completions)
  std::string finish_reason;               // empty while it goes on
  nlohmann::ordered_json stop_reason;      // a stop string, a token id, or null
};

struct Dialect {
  bool prompt_ids_in_choice;  // where an answer that carries ids has those of its prompt
  const char* id_prefix;      // "cmpl-"
  const char* object;         // of a whole answer
  const char* chunk_object;   // of a chunk
  // The parts of a choice that the endpoints spell differently, as `"key":value,` pairs appended
  // to an open object; `piece` holds what is new.
  void (*append_delta)(std::string& out, AnswerChoice& choice, const ChoiceText::Piece& piece);
  // The same for a whole choice.
  void (*append_whole)(std::string& out, AnswerChoice& choice);
};

// A request that is ready to run.
struct AnswerPlan {
  std::vector<Prepared> prompts;  // at least one
  StreamOptions stream;
  bool return_token_ids = false;  // ids beside the text; always where there is no text
};

// One of the two endpoints: how a body becomes a plan, and how its answer is spelled.
struct Door {
  const char* path;
  absl::StatusOr<AnswerPlan> (*plan)(const Api& api, const HttpRequest& request);
  const Dialect* dialect;
};
const Door& completions_door();
const Door& chat_door();

// Who an answer is, and how much of it its client has.
struct AnswerCall {
  std::shared_ptr<const AnswerRecord> record;
  std::shared_ptr<KeptAnswer> kept;  // null: it ends with its connection
  bool attach = false;               // `kept` was begun before: only listen
  EventId had = {};                  // with `attach`
};
// A new call, or one that was begun under the same Idempotency-Key.
void answer_call(const Api& api, const Door& door, Exchange& exchange);
// Submits or attaches, and answers. Owned by the exchange from then on.
void run_answer(const Api& api, const Dialect& dialect, AnswerPlan plan, AnswerCall call,
                Exchange& exchange);
// The id in the answer's JSON: the record's name without what keeps names apart.
absl::string_view json_id(const AnswerRecord& record);

void respond_error(Exchange& exchange, const absl::Status& status);

// The floor vLLM uses: JSON has no -inf.
double json_logprob(float logprob);
// A token's text for a JSON string.
std::string token_text(const NamedLogprob& token);

}  // namespace quire
