// quire.v1.Generation over loopback: a real engine and fleet, fake ranks with the hash model, so
// that every text and count is known exactly.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/api/answer_book.h"
#include "coordinator/api/grpc_generate.h"
#include "generate.grpc.pb.h"
#include "tests/coordinator/api/letter_tokenizer.h"
#include "tests/coordinator/fleet/serving_fixture.h"

namespace quire::test {

// Holds the workers' answers back while it is closed.
class Gate {
 public:
  void close_after(StepId step) {
    absl::MutexLock lock(&mutex_);
    last_ = step;
  }
  void open() { close_after(~StepId{0}); }
  void pass(StepId step) {
    absl::MutexLock lock(&mutex_);
    const auto may = [this, step] { return step <= last_; };
    mutex_.AwaitWithTimeout(absl::Condition(&may), kPatience);
  }

 private:
  absl::Mutex mutex_;
  StepId last_ = ~StepId{0};
};

struct Answer {
  grpc::Status status;
  std::vector<std::string> text, finish, stop_reason;
  std::vector<std::vector<TokenId>> tokens;
  std::vector<v1::TokenLogprobs> logprobs;  // of choice 0
  int messages = 0;
  int usage_messages = 0;
  v1::Usage usage;
  std::string request_id;
  std::string retry_ms;  // the trailer

  void take(const v1::GenerateReply& reply) {
    ++messages;
    request_id = reply.request_id();
    if (reply.has_usage()) {
      ++usage_messages;
      usage = reply.usage();
      return;
    }
    EXPECT_EQ(usage_messages, 0) << "a delta after usage";
    const v1::Delta& delta = reply.delta();
    const std::size_t i = delta.index();
    if (i >= text.size()) {
      text.resize(i + 1);
      finish.resize(i + 1);
      stop_reason.resize(i + 1);
      tokens.resize(i + 1);
    }
    EXPECT_EQ(finish[i], "") << "a delta after the finish";
    text[i] += delta.text();
    tokens[i].insert(tokens[i].end(), delta.token_ids().begin(), delta.token_ids().end());
    if (i == 0) logprobs.insert(logprobs.end(), delta.logprobs().begin(), delta.logprobs().end());
    finish[i] = delta.finish_reason();
    stop_reason[i] = delta.stop_reason();
  }
};

class GenerateTest : public ServingFixture {
 protected:
  virtual GenerationService::Options options() { return {}; }

  void add_services(grpc::ServerBuilder& builder) override {
    model_ = letter_model(config_.max_model_len);
    book_ = std::make_unique<AnswerBook>(engine_.get(), AnswerBookOptions{});
    generation_ = std::make_unique<GenerationService>(Api{.config = &config_,
                                                          .model = &model_,
                                                          .engine = engine_.get(),
                                                          .tenants = tenants_,
                                                          .book = book_.get()},
                                                      options());
    builder.RegisterService(generation_->service());
  }
  void stop_services() override { generation_->stop(absl::Seconds(5)); }

  void SetUp() override {
    ServingFixture::SetUp();
    grpc::ChannelArguments args;  // a small window, so that a slow reader is felt soon
    args.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    channel_ = grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), args);
    stub_ = v1::Generation::NewStub(channel_);
  }
  void TearDown() override {
    gate_.open();
    ServingFixture::TearDown();
    book_.reset();
    group_.reset();
  }

  void start_workers() {
    FakeWorkerScript script;
    script.num_blocks = 256;
    script.before_answer = [this](StepId step) { gate_.pass(step); };
    group_ = std::make_unique<FakeGroup>(address_, kWorld, "A", script);
    ASSERT_TRUE(wait_ready());
  }

  // Whether there was such a request.
  bool cancel(const std::string& request_id) {
    grpc::ClientContext context;
    v1::CancelRequest what;
    what.set_request_id(request_id);
    v1::CancelReply found;
    EXPECT_TRUE(stub_->Cancel(&context, what, &found).ok());
    return found.found();
  }

  v1::GenerateRequest request(const std::string& text, std::uint32_t max_tokens) {
    v1::GenerateRequest r;
    r.set_text(text);
    r.set_max_tokens(max_tokens);
    r.set_seed(7);
    r.set_ignore_eos(true);
    return r;
  }

  Answer generate(const v1::GenerateRequest& r, grpc::ClientContext* context = nullptr) {
    grpc::ClientContext own;
    if (context == nullptr) context = &own;
    auto reader = stub_->Generate(context, r);
    Answer answer;
    v1::GenerateReply reply;
    while (reader->Read(&reply)) answer.take(reply);
    answer.status = reader->Finish();
    const auto& trailers = context->GetServerTrailingMetadata();
    const auto retry = trailers.find("grpc-retry-pushback-ms");
    if (retry != trailers.end()) answer.retry_ms = {retry->second.data(), retry->second.size()};
    return answer;
  }

  std::vector<TokenId> oracle(const std::string& text, int count, int choice = 0) {
    return expected_tokens(model_.text.tokenizer->encode(text, true, true).value(), count, 7,
                           choice);
  }
  std::string text_of(const std::vector<TokenId>& tokens) {
    return model_.text.tokenizer->decode(tokens, true);
  }

  bool wait_idle() {
    return wait_until([this] {
      const EngineStats stats = engine_->stats();
      return stats.running == 0 && stats.waiting == 0 && stats.used_blocks == 0;
    });
  }

  ServedModel model_;
  std::vector<TenantEntry> tenants_;
  std::unique_ptr<AnswerBook> book_;
  std::unique_ptr<GenerationService> generation_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Generation::Stub> stub_;
  Gate gate_;
  std::unique_ptr<FakeGroup> group_;
};

}  // namespace quire::test
