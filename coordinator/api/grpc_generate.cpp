// quire.v1.Generation: from a call to a checked request, and who is open under which request id.
#include "coordinator/api/grpc_generate.h"

#include <grpcpp/server_context.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/status.h"
#include "coordinator/api/answer_book.h"
#include "coordinator/api/grpc_stream.h"
#include "coordinator/api/http.h"
#include "coordinator/api/task_thread.h"
#include "generate.grpc.pb.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

constexpr const char* kEndpoint = "grpc";
constexpr std::size_t kMaxRequestIdBytes = 128;
constexpr std::size_t kMaxMessageBytes = 800;  // a status message travels in a header

// The codes are the same numbers. A context that is too short is the client's error here, and a
// server that stops is one to try again elsewhere.
grpc::Status to_grpc(const absl::Status& status) {
  auto code = static_cast<grpc::StatusCode>(status.code());
  if (code == grpc::StatusCode::OUT_OF_RANGE) code = grpc::StatusCode::INVALID_ARGUMENT;
  if (code == grpc::StatusCode::FAILED_PRECONDITION) code = grpc::StatusCode::UNAVAILABLE;
  if (code == grpc::StatusCode::ABORTED) code = grpc::StatusCode::UNAVAILABLE;  // the journal
  return {code, std::string(status.message().substr(0, kMaxMessageBytes))};
}

absl::Time deadline_of(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

std::string new_request_id() {
  std::random_device device;
  const std::uint64_t high = device(), low = device();
  return absl::StrCat("gen-", absl::Hex((high << 32) | low, absl::kZeroPad16));
}

// How the request waits, and how its choices are found.
absl::Status set_service(const v1::GenerateRequest& request, GenerationInput& input) {
  input.deadline_ms_name = "timeout_ms";
  if (request.has_priority()) input.priority = request.priority();
  if (request.has_timeout_ms()) {
    constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
    input.deadline_ms = static_cast<std::int64_t>(std::min(request.timeout_ms(), kMost));
  }
  if (request.has_cache_salt()) input.cache_salt = request.cache_salt();
  if (request.has_best_of()) input.best_of = request.best_of();
  input.use_beam_search = request.use_beam_search();
  if (request.has_length_penalty()) input.length_penalty = request.length_penalty();
  switch (request.early_stopping()) {
    case v1::EARLY_STOPPING_NO:
      return absl::OkStatus();
    case v1::EARLY_STOPPING_YES:
      input.early_stopping = BeamParams::EarlyStopping::kYes;
      return absl::OkStatus();
    case v1::EARLY_STOPPING_NEVER:
      input.early_stopping = BeamParams::EarlyStopping::kNever;
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("`early_stopping` is ", static_cast<int>(request.early_stopping()),
                       "; it must be one of EARLY_STOPPING_NO, _YES and _NEVER."));
  }
}

GenerationInput input_of(const v1::GenerateRequest& request) {
  GenerationInput input;
  if (request.has_temperature()) input.temperature = request.temperature();
  if (request.has_top_p()) input.top_p = request.top_p();
  if (request.has_top_k()) input.top_k = request.top_k();
  if (request.has_min_p()) input.min_p = request.min_p();
  if (request.has_seed()) input.seed = request.seed();
  if (request.has_max_tokens()) input.max_tokens = request.max_tokens();
  if (request.has_logprobs()) input.logprobs = request.logprobs();
  if (request.has_n()) input.n = request.n();
  input.stop.assign(request.stop().begin(), request.stop().end());
  input.stop_token_ids.assign(request.stop_token_ids().begin(), request.stop_token_ids().end());
  input.ignore_eos = request.ignore_eos();
  input.include_stop = request.include_stop();
  if (request.has_presence_penalty()) input.presence_penalty = request.presence_penalty();
  if (request.has_frequency_penalty()) input.frequency_penalty = request.frequency_penalty();
  if (request.has_repetition_penalty()) input.repetition_penalty = request.repetition_penalty();
  input.min_tokens = request.min_tokens();
  for (const auto& [id, bias] : request.logit_bias()) input.logit_bias.emplace_back(id, bias);
  const auto& allowed = request.allowed_token_ids();
  if (!allowed.empty()) input.allowed_token_ids.emplace(allowed.begin(), allowed.end());
  return input;
}

// Sets the prompt and how messages call it.
absl::StatusOr<std::vector<TokenId>> prompt_of(const ServedModel& model,
                                               const v1::GenerateRequest& request,
                                               GenerationInput& input) {
  switch (request.input_case()) {
    case v1::GenerateRequest::kText:
      input.prompt_name = "text";
      return encode_prompt(model, request.text(), input.prompt_name);
    case v1::GenerateRequest::kTokenIds: {
      input.prompt_name = "token_ids";
      const auto& ids = request.token_ids().ids();
      return check_prompt_ids(model, {ids.begin(), ids.end()}, input.prompt_name);
    }
    case v1::GenerateRequest::kChat: {
      input.prompt_name = "messages";
      auto messages = nlohmann::ordered_json::array();
      for (const v1::Message& message : request.chat().messages()) {
        messages.push_back({{"role", message.role()}, {"content", message.content()}});
      }
      return encode_chat(model, messages);
    }
    default:
      return absl::InvalidArgumentError(
          "`input` is missing; set one of `text`, `token_ids` and `chat`.");
  }
}

// A call that is refused before it has begun.
class RefusedCall final : public grpc::ServerWriteReactor<v1::GenerateReply> {
 public:
  explicit RefusedCall(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

class GenerationService::Impl final : public v1::Generation::CallbackService {
 public:
  Impl(const Api& api, Options options)
      : api_(api), options_(options), keys_(api.config->api_key, api.tenants) {}

  grpc::ServerWriteReactor<v1::GenerateReply>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    const absl::StatusOr<int> tenant = tenant_of(*context);
    if (!tenant.ok()) return new RefusedCall(to_grpc(tenant.status()));
    const absl::Status model = check_model(*api_.model, request->model());
    if (!model.ok()) return new RefusedCall(to_grpc(model));
    auto stream = open(context, *tenant, request->request_id());
    if (!stream.ok()) return new RefusedCall(to_grpc(stream.status()));
    // The call may be over before its turn comes: the task owns copies.
    intake_.leave([this, stream = *stream, asked = *request, tenant = *tenant,
                   deadline = deadline_of(*context)] {
      const absl::Status begun = begin(stream, asked, tenant, deadline);
      if (absl::IsResourceExhausted(begun)) {
        stream->refuse(to_grpc(begun), api_.engine->retry_after());
      } else if (!begun.ok()) {
        stream->fail(to_grpc(begun));
      }
    });
    return stream->get();
  }

  grpc::ServerWriteReactor<v1::GenerateReply>* Resume(grpc::CallbackServerContext* context,
                                                      const v1::ResumeRequest* request) override {
    const absl::StatusOr<int> tenant = tenant_of(*context);
    if (!tenant.ok()) return new RefusedCall(to_grpc(tenant.status()));
    const auto kept = kept_under(*tenant, request->request_id());
    if (kept == nullptr) return new RefusedCall(to_grpc(no_answer(request->request_id())));
    auto stream = open(context, *tenant, request->request_id());
    if (!stream.ok()) return new RefusedCall(to_grpc(stream.status()));
    intake_.leave([this, stream = *stream, kept, asked = *request] {
      const absl::Status resumed = resume(stream, kept, asked);
      if (!resumed.ok()) stream->fail(to_grpc(resumed));
    });
    return stream->get();
  }

  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context,
                                   const v1::CancelRequest* request,
                                   v1::CancelReply* reply) override {
    const absl::StatusOr<int> tenant = tenant_of(*context);
    if (tenant.ok()) {
      const std::shared_ptr<GenerateStream> stream = find({*tenant, request->request_id()});
      const auto kept = kept_under(*tenant, request->request_id());
      if (stream != nullptr) stream->cancel();
      if (kept != nullptr && !kept->ended()) {  // also one that nobody listens to
        for (const RequestId id : kept->requests()) api_.engine->cancel(id);
        api_.book->remove(*kept);
      }
      reply->set_found(stream != nullptr || kept != nullptr);
    }
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(to_grpc(tenant.status()));
    return reactor;
  }

  grpc::ServerUnaryReactor* Models(grpc::CallbackServerContext* context, const v1::ModelsRequest*,
                                   v1::ModelsReply* reply) override {
    const absl::Status status = tenant_of(*context).status();
    if (status.ok()) {
      v1::Model* model = reply->add_models();
      model->set_id(api_.model->name);
      model->set_max_model_len(static_cast<std::uint32_t>(api_.model->max_model_len));
      model->set_architecture(api_.model->architecture);
      model->set_tensor_parallel_size(static_cast<std::uint32_t>(api_.model->tensor_parallel_size));
    }
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(to_grpc(status));
    return reactor;
  }

  void stop(absl::Duration deadline) {
    std::vector<std::shared_ptr<GenerateStream>> left;
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return open_.empty(); };
      if (mutex_.AwaitWithTimeout(absl::Condition(&none), deadline)) return;
      for (const auto& [key, weak] : open_) {
        if (auto stream = weak.lock()) left.push_back(std::move(stream));
      }
    }
    for (const auto& stream : left) {
      stream->fail({grpc::StatusCode::UNAVAILABLE, "The server is stopping."});
    }
  }

 private:
  // Whose request it is under which name: tenants do not see each other's.
  using Key = std::pair<int, std::string>;

  absl::StatusOr<int> tenant_of(const grpc::CallbackServerContext& context) const {
    if (!keys_.required()) return 0;
    const auto& metadata = context.client_metadata();
    const auto found = metadata.find("authorization");
    if (found != metadata.end()) {
      const auto tenant = keys_.tenant_of({found->second.data(), found->second.size()});
      if (tenant.has_value()) return *tenant;
    }
    return absl::UnauthenticatedError(
        "The API key is missing or wrong; send it as metadata `authorization: Bearer <key>`.");
  }

  // What is cheap to check, and the stream under its request id.
  absl::StatusOr<std::shared_ptr<GenerateStream>> open(grpc::CallbackServerContext* context,
                                                       int tenant, const std::string& wanted) {
    if (wanted.size() > kMaxRequestIdBytes) {
      return absl::InvalidArgumentError(absl::StrCat("`request_id` has ", wanted.size(),
                                                     " bytes; at most ", kMaxRequestIdBytes,
                                                     " are allowed."));
    }
    const std::string id = wanted.empty() ? new_request_id() : wanted;
    const Key key(tenant, id);
    auto stream = std::make_shared<GenerateStream>(
        api_, GenerateStream::Setup{id, options_.max_buffered_bytes, options_.write_timeout,
                                    [this, key] { forget(key); }, context});
    QUIRE_RETURN_IF_ERROR(remember(key, stream));
    stream->keep_alive();
    return stream;
  }

  absl::StatusOr<Prepared> prepared_of(const v1::GenerateRequest& request) const {
    GenerationInput input = input_of(request);
    QUIRE_RETURN_IF_ERROR(set_service(request, input));
    QUIRE_ASSIGN_OR_RETURN(std::vector<TokenId> prompt, prompt_of(*api_.model, request, input));
    return prepare(api_, std::move(prompt), input);
  }

  DeliverFn deliver_to(const std::shared_ptr<GenerateStream>& stream) {
    return [this, stream](OutputDelta delta) {
      delivery_.leave(
          [stream, letter = std::move(delta)]() mutable { stream->take(std::move(letter)); });
    };
  }

  // Intake thread: everything that takes time.
  absl::Status begin(const std::shared_ptr<GenerateStream>& stream,
                     const v1::GenerateRequest& request, int tenant, absl::Time deadline) {
    QUIRE_ASSIGN_OR_RETURN(Prepared prepared, prepared_of(request));
    QUIRE_RETURN_IF_ERROR(check_open(*api_.engine));
    stream->begin(prepared);
    prepared.request.tenant = tenant;
    // One that goes on without its call is not bound by the call's deadline.
    if (!request.resumable()) {
      prepared.request.deadline = std::min(deadline, prepared.request.deadline);
    }
    prepared.request.answer = record_of(request, stream->request_id(), tenant);
    prepared.request.deliver = deliver_to(stream);
    if (request.resumable()) return begin_kept(stream, std::move(prepared.request));
    QUIRE_ASSIGN_OR_RETURN(const RequestId id, api_.engine->submit(std::move(prepared.request)));
    stream->submitted(id);
    return absl::OkStatus();
  }

  absl::Status begin_kept(const std::shared_ptr<GenerateStream>& stream, Request request) {
    if (api_.book == nullptr) {
      return absl::InvalidArgumentError("`resumable` is not supported by this server.");
    }
    const int n = request.n;
    QUIRE_ASSIGN_OR_RETURN(const AnswerBook::Entry entry,
                           api_.book->open(request.answer, request.tenant,
                                           [n](KeptAnswer& fresh) { fresh.add_prompt(n); }));
    if (!entry.is_new) {
      return absl::AlreadyExistsError(
          "`request_id` names an answer that can be resumed: call Resume, or choose another id.");
    }
    const std::shared_ptr<KeptAnswer>& kept = entry.answer;
    stream->listens(kept, kept->listen([deliver = std::move(request.deliver)](int, OutputDelta d) {
      deliver(std::move(d));
    }));
    request.deliver = kept->deliver_to(0);
    const absl::StatusOr<RequestId> id = api_.engine->submit(std::move(request));
    if (!id.ok()) {
      api_.book->remove(*kept);
      kept->fail(std::string(id.status().message()));
      return id.status();
    }
    kept->submitted(0, *id);
    stream->submitted(*id);
    return absl::OkStatus();
  }

  absl::Status resume(const std::shared_ptr<GenerateStream>& stream,
                      const std::shared_ptr<KeptAnswer>& kept, const v1::ResumeRequest& asked) {
    v1::GenerateRequest request;
    if (!request.ParseFromString(kept->record().body)) return no_answer(asked.request_id());
    QUIRE_ASSIGN_OR_RETURN(const Prepared prepared, prepared_of(request));
    if (kept->shape() != std::vector<int>{prepared.request.n}) return no_answer(asked.request_id());
    const bool comes_anew = prepared.num_returned < prepared.request.n;  // numbered at the end
    std::vector<EventId::Choice> had(static_cast<std::size_t>(prepared.request.n));
    for (const v1::Received& received : asked.received()) {
      if (comes_anew) break;
      const auto tokens = static_cast<int>(std::min(received.num_tokens(), 1u << 30));
      if (received.index() >= had.size() ||
          !kept->covers(static_cast<int>(received.index()), tokens,
                        prepared.request.params.max_tokens)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "`received` says that ", tokens, " tokens of choice ", received.index(),
            " have come, which is more than is known of it; ask again without `received`."));
      }
      had[received.index()] = {tokens, received.finished()};
    }
    stream->begin(prepared, had);
    stream->listens(kept, kept->listen([deliver = deliver_to(stream)](int, OutputDelta d) {
      deliver(std::move(d));
    }));
    stream->submitted(kept->requests().front());
    return absl::OkStatus();
  }

  // What the journal keeps of a call. Request ids may be used again: names are told apart.
  std::shared_ptr<const AnswerRecord> record_of(const v1::GenerateRequest& request,
                                                const std::string& id, int tenant) const {
    AnswerRecord record;
    record.name = absl::StrCat(id, "~", random_hex(8));
    record.endpoint = kEndpoint;
    record.body = request.SerializeAsString();
    record.key = key_of(id);
    if (!api_.tenants.empty()) {
      record.tenant = api_.tenants[static_cast<std::size_t>(tenant)].name;
    }
    record.created = absl::ToUnixSeconds(absl::Now());
    return std::make_shared<AnswerRecord>(std::move(record));
  }

  static std::string key_of(const std::string& request_id) {
    return absl::StrCat(kEndpoint, ":", request_id);
  }
  std::shared_ptr<KeptAnswer> kept_under(int tenant, const std::string& request_id) const {
    if (api_.book == nullptr || request_id.empty()) return nullptr;
    std::shared_ptr<KeptAnswer> kept = api_.book->find_by_key(tenant, key_of(request_id));
    return kept != nullptr && kept->record().endpoint == kEndpoint ? kept : nullptr;
  }
  static absl::Status no_answer(const std::string& request_id) {
    return absl::NotFoundError(absl::StrCat(
        "There is no answer \"", request_id.substr(0, kMaxRequestIdBytes),
        "\" to resume: it ended with its call (send `resumable` to keep one), or its time has "
        "passed."));
  }

  absl::Status remember(const Key& key, const std::shared_ptr<GenerateStream>& stream) {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return absl::UnavailableError("The server is stopping.");
    if (open_.emplace(key, stream).second) return absl::OkStatus();
    return absl::AlreadyExistsError(
        absl::StrCat("`request_id` \"", key.second, "\" names a request that is still running."));
  }

  void forget(const Key& key) {
    absl::MutexLock lock(&mutex_);
    open_.erase(key);
  }

  std::shared_ptr<GenerateStream> find(const Key& key) {
    absl::MutexLock lock(&mutex_);
    const auto found = open_.find(key);
    return found == open_.end() ? nullptr : found->second.lock();
  }

  const Api api_;
  const Options options_;
  const ApiKeys keys_;
  absl::Mutex mutex_;
  std::map<Key, std::weak_ptr<GenerateStream>> open_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  TaskThread delivery_;
  TaskThread intake_;  // last: it stops first
};

GenerationService::GenerationService(const Api& api) : GenerationService(api, Options()) {}
GenerationService::GenerationService(const Api& api, Options options)
    : impl_(std::make_unique<Impl>(api, options)) {}
GenerationService::~GenerationService() = default;

grpc::Service* GenerationService::service() {
  return impl_.get();
}
void GenerationService::stop(absl::Duration deadline) {
  impl_->stop(deadline);
}

}  // namespace quire
