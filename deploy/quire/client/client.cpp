#include "deploy/quire/client/client.h"

#include <grpcpp/grpcpp.h>

#include <mutex>

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

}  // namespace

struct Client::Impl {
  ClientOptions options;
  std::unique_ptr<v1::Generation::Stub> stub;
  std::mutex mutex;
  grpc::ClientContext* running = nullptr;  // guarded by mutex

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

  absl::StatusOr<Answer> call(const v1::GenerateRequest& request,
                              const std::function<void(const std::string&)>& on_text) {
    grpc::ClientContext context;
    if (!options.api_key.empty()) {
      context.AddMetadata("authorization", absl::StrCat("Bearer ", options.api_key));
    }
    {
      std::lock_guard<std::mutex> lock(mutex);
      running = &context;
    }
    auto reader = stub->Generate(&context, request);
    Answer answer;
    v1::GenerateReply reply;
    while (reader->Read(&reply)) {
      if (reply.has_delta()) {
        if (!reply.delta().text().empty()) on_text(reply.delta().text());
        answer.text += reply.delta().text();
        if (!reply.delta().finish_reason().empty()) {
          answer.finish_reason = reply.delta().finish_reason();
        }
      } else if (reply.has_usage()) {
        answer.prompt_tokens = static_cast<int>(reply.usage().prompt_tokens());
        answer.cached_tokens = static_cast<int>(reply.usage().cached_tokens());
        answer.completion_tokens = static_cast<int>(reply.usage().completion_tokens());
      }
    }
    const grpc::Status status = reader->Finish();
    std::lock_guard<std::mutex> lock(mutex);
    running = nullptr;
    if (!status.ok()) {
      return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                          status.error_message());
    }
    return answer;
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
  const v1::GenerateRequest request = to_request(prompt);
  const absl::Time give_up = absl::Now() + absl::Seconds(impl_->options.wait_seconds);
  for (;;) {
    bool began = false;
    auto answer = impl_->call(request, [&](const std::string& text) {
      began = true;
      on_text(text);
    });
    // Only "not there yet" is worth another try, and only before anything was shown.
    if (began || !absl::IsUnavailable(answer.status()) || absl::Now() >= give_up) return answer;
    absl::SleepFor(absl::Milliseconds(50));
    impl_->connect();
  }
}

bool Client::cancel() {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  if (impl_->running == nullptr) return false;
  impl_->running->TryCancel();
  return true;
}

}  // namespace quire
