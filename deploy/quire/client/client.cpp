#include "deploy/quire/client/client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <mutex>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/status.h"
#include "common/utf8.h"
#include "generate.grpc.pb.h"

namespace quire {
namespace {

v1::GenerateRequest to_request(const Prompt& prompt) {
  v1::GenerateRequest request;
  if (prompt.messages.empty()) {
    request.set_text(prompt.text);
  } else {
    for (const auto& [role, content] : prompt.messages) {
      v1::Message* message = request.mutable_chat()->add_messages();
      message->set_role(role);
      message->set_content(content);
    }
  }
  request.set_temperature(prompt.temperature);
  request.set_top_p(prompt.top_p);
  if (prompt.has_seed) request.set_seed(prompt.seed);
  if (prompt.max_tokens > 0) request.set_max_tokens(static_cast<std::uint32_t>(prompt.max_tokens));
  if (prompt.timeout_ms > 0) {
    request.set_timeout_ms(static_cast<std::uint64_t>(prompt.timeout_ms));
  }
  if (prompt.priority != 0) request.set_priority(prompt.priority);
  if (prompt.best_of > 1) request.set_best_of(static_cast<std::uint32_t>(prompt.best_of));
  if (prompt.beams > 0) {
    request.set_use_beam_search(true);
    request.set_best_of(static_cast<std::uint32_t>(prompt.beams));
  }
  return request;
}

absl::Status check_utf8(const Prompt& prompt) {
  std::vector<std::string> texts = {prompt.text};
  for (const auto& [role, content] : prompt.messages) texts.push_back(content);
  for (const std::string& text : texts) {
    const std::size_t bad = utf8::first_invalid(text);
    if (bad == utf8::npos) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("the text is not valid UTF-8 at byte ", bad, "; convert it first"));
  }
  return absl::OkStatus();
}

// What has come of an answer.
struct Progress {
  Answer answer;
  int num_tokens = 0;
};

constexpr absl::Duration kResumeWithin = absl::Seconds(30);

// The connection or the server is gone, and may come back. One that stops says so.
bool is_lost(const absl::Status& status) {
  return absl::IsUnavailable(status) && !absl::StrContains(status.message(), "stopping");
}

// A call that broke off after it had reached the server, which has not refused it.
bool may_be_accepted(const absl::Status& status) {
  for (const char* refusal : {"failed to connect", "No worker group", "worker group failed",
                              "journal", "DNS", "Handshake"}) {
    if (absl::StrContains(status.message(), refusal)) return false;
  }
  return true;
}

std::string random_id() {
  std::random_device device;
  const std::uint64_t high = device(), low = device();
  return absl::StrCat("cli-", absl::Hex((high << 32) | low, absl::kZeroPad16));
}

}  // namespace

struct Client::Impl {
  ClientOptions options;
  std::unique_ptr<v1::Generation::Stub> stub;
  std::mutex mutex;
  grpc::ClientContext* running = nullptr;  // guarded by mutex
  bool cancelled = false;                  // guarded by mutex

  void begin() {
    std::lock_guard<std::mutex> lock(mutex);
    cancelled = false;
  }

  // A new channel with connections of its own: one that failed resolves again only after 30 s.
  void connect() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    if (!options.server_name.empty()) arguments.SetSslTargetNameOverride(options.server_name);
    const TlsPem& tls = options.tls;
    stub = v1::Generation::NewStub(grpc::CreateCustomChannel(
        options.server,
        tls.ca.empty() ? grpc::InsecureChannelCredentials()
                       : grpc::SslCredentials({tls.ca, tls.key, tls.cert}),
        arguments));
  }

  void authorize(grpc::ClientContext& context) const {
    if (options.api_key.empty()) return;
    context.AddMetadata("authorization", absl::StrCat("Bearer ", options.api_key));
  }

  // Reads what comes into `progress`. `start` makes the call on the context it is given.
  template <typename Start>
  absl::Status read(const Start& start, Progress* progress,
                    const std::function<void(const std::string&)>& on_text) {
    grpc::ClientContext context;
    authorize(context);
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (cancelled) return absl::CancelledError("The call was cancelled.");
      running = &context;
    }
    auto reader = start(&context);
    v1::GenerateReply reply;
    while (reader->Read(&reply)) take(reply, progress, on_text);
    const grpc::Status status = reader->Finish();
    std::lock_guard<std::mutex> lock(mutex);
    running = nullptr;
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }

  static void take(const v1::GenerateReply& reply, Progress* progress,
                   const std::function<void(const std::string&)>& on_text) {
    Answer& answer = progress->answer;
    if (!reply.has_usage() && !answer.finish_reason.empty()) return;  // it has come before
    if (reply.has_usage()) {
      answer.prompt_tokens = static_cast<int>(reply.usage().prompt_tokens());
      answer.cached_tokens = static_cast<int>(reply.usage().cached_tokens());
      answer.completion_tokens = static_cast<int>(reply.usage().completion_tokens());
      return;
    }
    const v1::Delta& delta = reply.delta();
    progress->num_tokens += delta.token_ids_size();
    answer.text += delta.text();
    if (!delta.finish_reason().empty()) answer.finish_reason = delta.finish_reason();
    if (!delta.text().empty()) on_text(delta.text());
  }

  absl::Status generate(const v1::GenerateRequest& request, Progress* progress,
                        const std::function<void(const std::string&)>& on_text) {
    return read([&](grpc::ClientContext* context) { return stub->Generate(context, request); },
                progress, on_text);
  }

  absl::Status resume(const std::string& request_id, Progress* progress,
                      const std::function<void(const std::string&)>& on_text) {
    v1::ResumeRequest request;
    request.set_request_id(request_id);
    v1::Received* received = request.add_received();
    received->set_num_tokens(static_cast<std::uint32_t>(progress->num_tokens));
    received->set_finished(!progress->answer.finish_reason.empty());
    return read([&](grpc::ClientContext* context) { return stub->Resume(context, request); },
                progress, on_text);
  }

  // The server keeps an answer whose call broke; this says that nobody wants it.
  void forget(const std::string& request_id) {
    grpc::ClientContext context;
    authorize(context);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
    v1::CancelRequest request;
    request.set_request_id(request_id);
    v1::CancelReply reply;
    stub->Cancel(&context, request, &reply);
  }
};

Client::Client(ClientOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
  impl_->connect();
}

Client::~Client() = default;

absl::StatusOr<Answer> Client::generate(const Prompt& prompt,
                                        const std::function<void(const std::string&)>& on_text) {
  QUIRE_RETURN_IF_ERROR(check_utf8(prompt));
  v1::GenerateRequest request = to_request(prompt);
  request.set_resumable(true);
  const absl::Time give_up = absl::Now() + absl::Seconds(impl_->options.wait_seconds);
  absl::Time lost_until = absl::InfinitePast();  // it tries to resume until then
  Progress progress;
  impl_->begin();
  for (;;) {
    const int had = progress.num_tokens;
    const bool resumes = lost_until > absl::InfinitePast();
    absl::Status status;
    if (resumes) {
      status = impl_->resume(request.request_id(), &progress, on_text);
    } else {
      request.set_request_id(random_id());
      status = impl_->generate(request, &progress, on_text);
    }
    if (status.ok()) return progress.answer;
    if (absl::IsCancelled(status)) impl_->forget(request.request_id());
    const absl::Time now = absl::Now();
    if (resumes && absl::IsNotFound(status) && progress.num_tokens == 0) {
      lost_until = absl::InfinitePast();  // it had not been accepted
      continue;
    }
    // The server may not have noticed yet that the call before this one is gone.
    if (resumes && absl::IsAlreadyExists(status)) status = absl::UnavailableError(status.message());
    if (!is_lost(status)) return status;
    if (progress.num_tokens > had || (!resumes && may_be_accepted(status))) {
      lost_until = now + kResumeWithin;
    } else if (now >= (resumes ? lost_until : give_up)) {
      return status;
    }
    absl::SleepFor(absl::Milliseconds(50));
    impl_->connect();
  }
}

bool Client::cancel() {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->cancelled = true;
  if (impl_->running == nullptr) return false;
  impl_->running->TryCancel();
  return true;
}

}  // namespace quire
