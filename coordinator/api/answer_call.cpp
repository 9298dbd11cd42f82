// Calls under a name: who an answer is (its record), whether it was begun before under the same
// Idempotency-Key, and the rest of one whose connection broke (GET /v1/streams/NAME).
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status.h"
#include "coordinator/api/answer_book.h"
#include "coordinator/api/api_error.h"
#include "coordinator/api/endpoints.h"
#include "coordinator/api/openai_answer.h"

namespace quire {
namespace {

constexpr std::size_t kMaxKeyBytes = 256;
constexpr std::size_t kApartBytes = 9;  // "~" and eight digits

const Door* door_of(absl::string_view path) {
  for (const Door* door : {&completions_door(), &chat_door()}) {
    if (path == door->path) return door;
  }
  return nullptr;
}

absl::StatusOr<std::string> key_of(const HttpRequest& request) {
  const absl::string_view key = request.header("idempotency-key");
  if (request.count("idempotency-key") > 1 || key.size() > kMaxKeyBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "`Idempotency-Key` must be sent once and have at most ", kMaxKeyBytes, " bytes."));
  }
  return std::string(key);
}

// Clients may send the same X-Request-Id twice; names are told apart.
std::string name_of(const Dialect& dialect, const HttpRequest& request) {
  std::string name = absl::StrCat(dialect.id_prefix, request.id);
  if (request.header("x-request-id") == request.id) absl::StrAppend(&name, "~", random_hex(4));
  return name;
}

AnswerRecord record_of(const Api& api, const Door& door, const AnswerPlan& plan, std::string key,
                       const Exchange& exchange) {
  AnswerRecord record;
  record.name = name_of(*door.dialect, exchange.request());
  record.endpoint = door.path;
  record.body = exchange.request().body;
  record.key = std::move(key);
  if (!api.tenants.empty()) {
    record.tenant = api.tenants[static_cast<std::size_t>(exchange.tenant())].name;
  }
  record.created = absl::ToUnixSeconds(absl::Now());
  record.num_prompts = static_cast<int>(plan.prompts.size());
  return record;
}

int num_choices(const AnswerPlan& plan) {
  int count = 0;
  for (const Prepared& prompt : plan.prompts) count += prompt.request.n;
  return count;
}

int max_tokens_of(const AnswerPlan& plan) {
  int most = 0;
  for (const Prepared& prompt : plan.prompts) {
    most = std::max(most, prompt.request.params.max_tokens);
  }
  return most;
}

// What Last-Event-ID says of this answer; nothing where it was not sent.
absl::StatusOr<EventId> had_of(const HttpRequest& request, const AnswerPlan& plan,
                               const KeptAnswer& kept) {
  EventId had;
  const absl::string_view text = request.header("last-event-id");
  if (text.empty()) return had;
  QUIRE_ASSIGN_OR_RETURN(had, parse_event_id(text));
  if (had.name != kept.record().name ||
      had.choices.size() != static_cast<std::size_t>(num_choices(plan)) || !plan.stream.stream) {
    return absl::InvalidArgumentError("`Last-Event-ID` is of another answer.");
  }
  for (std::size_t i = 0; i < had.choices.size(); ++i) {
    if (kept.covers(static_cast<int>(i), had.choices[i].num_tokens, max_tokens_of(plan))) continue;
    return absl::InvalidArgumentError(
        "`Last-Event-ID` says that more has come of this answer than there is of it.");
  }
  return had;
}

// The answer is made again from the body as it came then: the same text options, the same spelling.
void attach(const Api& api, const std::shared_ptr<KeptAnswer>& kept, Exchange& exchange) {
  const Door* door = door_of(kept->record().endpoint);
  if (door == nullptr) {
    return exchange.respond(
        error_response({.status = 400,
                        .message = absl::StrCat("This answer was asked for over ",
                                                kept->record().endpoint, ": resume it there."),
                        .code = "invalid_value"}));
  }
  HttpRequest original;
  original.body = kept->record().body;
  original.headers = {{"content-type", "application/json"}};
  absl::StatusOr<AnswerPlan> plan = door->plan(api, original);
  if (!plan.ok()) return respond_error(exchange, plan.status());
  std::vector<int> shape;
  for (const Prepared& prompt : plan->prompts) shape.push_back(prompt.request.n);
  if (shape != kept->shape()) {
    return respond_error(exchange, absl::DataLossError("The answer is not that of its request."));
  }
  absl::StatusOr<EventId> had = had_of(exchange.request(), *plan, *kept);
  if (!had.ok()) return respond_error(exchange, had.status());
  run_answer(api, *door->dialect, *std::move(plan),
             {kept->shared_record(), kept, true, *std::move(had)}, exchange);
}

void respond_gone(Exchange& exchange, const std::string& name) {
  exchange.respond(error_response(
      {.status = 404,
       .message = absl::StrCat("There is no answer ", name.substr(0, 200), name.empty() ? "" : " ",
                               "to resume: it ended with its connection (send an Idempotency-Key "
                               "to keep one), or its time has passed. Ask again without "
                               "Last-Event-ID."),
       .code = "stream_not_found"}));
}

}  // namespace

absl::string_view json_id(const AnswerRecord& record) {
  const absl::string_view name = record.name;
  if (name.size() <= kApartBytes || name[name.size() - kApartBytes] != '~') return name;
  return name.substr(0, name.size() - kApartBytes);
}

void answer_call(const Api& api, const Door& door, Exchange& exchange) {
  auto key = key_of(exchange.request());
  if (!key.ok()) return respond_error(exchange, key.status());
  if (!key->empty() && api.book == nullptr) {
    return respond_error(
        exchange, absl::InvalidArgumentError("`Idempotency-Key` is not supported by this server."));
  }
  const bool resumes = !exchange.request().header("last-event-id").empty();
  if (resumes && (key->empty() || api.book->find_by_key(exchange.tenant(), *key) == nullptr)) {
    return respond_gone(exchange, "");  // a new answer from the beginning would be no rest
  }
  auto plan = door.plan(api, exchange.request());
  if (!plan.ok()) return respond_error(exchange, plan.status());
  AnswerCall call;
  call.record =
      std::make_shared<AnswerRecord>(record_of(api, door, *plan, *std::move(key), exchange));
  if (!call.record->key.empty()) {
    auto entry = api.book->open(call.record, exchange.tenant(), [&plan](KeptAnswer& fresh) {
      for (const Prepared& prompt : plan->prompts) {
        fresh.add_prompt(prompt.request.n);
      }
    });
    if (!entry.ok()) return respond_error(exchange, entry.status());
    if (!entry->is_new) return attach(api, entry->answer, exchange);
    if (resumes) {  // its time has passed just now
      api.book->remove(*entry->answer);
      entry->answer->fail("The answer that was to be resumed is gone.");
      return respond_gone(exchange, "");
    }
    call.kept = entry->answer;
  }
  const absl::Status open = check_open(*api.engine);
  if (!open.ok()) {
    if (call.kept != nullptr) {
      api.book->remove(*call.kept);
      call.kept->fail(std::string(open.message()));
    }
    return respond_error(exchange, open);
  }
  run_answer(api, *door.dialect, *std::move(plan), std::move(call), exchange);
}

void handle_stream(const Api& api, Exchange& exchange) {
  const std::string name = exchange.request().path.substr(sizeof("/v1/streams/") - 1);
  const std::shared_ptr<KeptAnswer> kept =
      api.book != nullptr ? api.book->find(exchange.tenant(), name) : nullptr;
  if (kept != nullptr) return attach(api, kept, exchange);
  respond_gone(exchange, name);
}

}  // namespace quire
