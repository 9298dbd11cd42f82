// quire.v1.Generation: streams, ends, refusals, slow and leaving clients.
#include <gmock/gmock.h>

#include "tests/coordinator/api/grpc_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(GenerateTest, StreamsTextTokensAndUsage) {
  start_workers();
  v1::GenerateRequest r = request("hello", 50);
  r.set_request_id("mine");
  const Answer answer = generate(r);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.text.size(), 1u);
  EXPECT_EQ(answer.tokens[0], oracle("hello", 50));
  EXPECT_EQ(answer.text[0], text_of(oracle("hello", 50)));
  EXPECT_EQ(answer.finish[0], "length");
  EXPECT_EQ(answer.request_id, "mine");
  EXPECT_EQ(answer.usage_messages, 1);
  EXPECT_EQ(answer.usage.prompt_tokens(), 5u);
  EXPECT_EQ(answer.usage.completion_tokens(), 50u);
  EXPECT_TRUE(wait_idle());
}

TEST_F(GenerateTest, StreamsWhileItGenerates) {
  start_workers();
  gate_.close_after(6);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request("hello", 50));
  Answer answer;
  v1::GenerateReply reply;
  ASSERT_TRUE(reader->Read(&reply));  // although no answer is complete
  answer.take(reply);
  gate_.open();
  while (reader->Read(&reply)) answer.take(reply);
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(answer.tokens[0], oracle("hello", 50));
  EXPECT_GT(answer.messages, 2);
}

TEST_F(GenerateTest, ServesManyChoicesAndLogprobs) {
  start_workers();
  v1::GenerateRequest r = request("abc", 20);
  r.set_n(3);
  r.set_logprobs(2);
  const Answer answer = generate(r);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.text.size(), 3u);
  for (int choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(answer.tokens[static_cast<std::size_t>(choice)], oracle("abc", 20, choice));
  }
  EXPECT_EQ(answer.usage.completion_tokens(), 60u);
  ASSERT_EQ(answer.logprobs.size(), 20u);
  for (std::size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(answer.logprobs[i].token_id(), answer.tokens[0][i]);
    EXPECT_EQ(answer.logprobs[i].top_size(), 2);
  }
}

TEST_F(GenerateTest, TakesTokenIds) {
  start_workers();
  v1::GenerateRequest r = request("", 10);
  for (const int id : {1, 2, 3}) r.mutable_token_ids()->add_ids(id);
  const Answer answer = generate(r);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.tokens[0], expected_tokens({1, 2, 3}, 10, 7));
}

TEST_F(GenerateTest, AStopStringCutsTextAndUsageAndFreesTheBlocks) {
  start_workers();
  const std::string whole = text_of(oracle("stop", 200));
  const std::string stop = whole.substr(30, 4);
  const std::size_t cut = whole.find(stop);
  v1::GenerateRequest r = request("stop", 200);
  r.add_stop(stop);
  r.add_stop("no such text");
  Answer answer = generate(r);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text[0], whole.substr(0, cut));
  EXPECT_EQ(answer.finish[0], "stop");
  EXPECT_EQ(answer.stop_reason[0], stop);
  EXPECT_EQ(answer.usage.completion_tokens(), answer.tokens[0].size());
  EXPECT_THAT(text_of(answer.tokens[0]), ::testing::EndsWith(stop));
  EXPECT_TRUE(wait_idle());
  EXPECT_EQ(engine_->stats().finished_stop, 1u);

  r.set_include_stop(true);
  answer = generate(r);
  EXPECT_EQ(answer.text[0], whole.substr(0, cut + stop.size()));
}

TEST_F(GenerateTest, AStopTokenEndsTheChoiceAndIsNamed) {
  start_workers();
  const std::vector<TokenId> whole = oracle("token", 60);
  const TokenId stop = whole[20];
  const auto first = std::find(whole.begin(), whole.end(), stop) - whole.begin();
  v1::GenerateRequest r = request("token", 60);
  r.add_stop_token_ids(stop);
  const Answer answer = generate(r);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.finish[0], "stop");
  EXPECT_EQ(answer.stop_reason[0], absl::StrCat(stop));
  EXPECT_EQ(answer.text[0], text_of({whole.begin(), whole.begin() + first}));
}

TEST_F(GenerateTest, ADisconnectFreesTheRequest) {
  start_workers();
  {
    grpc::ClientContext context;
    gate_.close_after(10);  // it can not be finished before the client has gone
    auto reader = stub_->Generate(&context, request("bye", 400));
    v1::GenerateReply reply;
    ASSERT_TRUE(reader->Read(&reply));
    context.TryCancel();
    while (reader->Read(&reply)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(wait_until([this] { return engine_->stats().finished_abort == 1; }));
  gate_.open();
  EXPECT_TRUE(wait_idle());
}

// The client's clock and the engine's see the deadline pass at once: either may speak first.
TEST_F(GenerateTest, ADeadlineFreesTheRequest) {
  start_workers();
  gate_.close_after(5);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  const Answer answer = generate(request("late", 400), &context);
  if (answer.status.ok()) {
    EXPECT_EQ(answer.finish[0], "deadline");
  } else {
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  EXPECT_TRUE(wait_until([this] { return engine_->stats().finished_abort == 1; }));
  gate_.open();
  EXPECT_TRUE(wait_idle());
}

TEST_F(GenerateTest, CancelByIdEndsTheStreamInOrder) {
  start_workers();
  gate_.close_after(8);
  v1::GenerateRequest r = request("long", 400);
  r.set_request_id("victim");
  r.set_n(2);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, r);
  Answer answer;
  v1::GenerateReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  answer.take(reply);
  EXPECT_FALSE(cancel("nobody"));
  EXPECT_TRUE(cancel("victim"));
  gate_.open();
  while (reader->Read(&reply)) answer.take(reply);
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(answer.finish[0], "cancelled");
  EXPECT_EQ(answer.finish[1], "cancelled");
  EXPECT_EQ(answer.usage_messages, 1);
  EXPECT_EQ(answer.usage.completion_tokens(), answer.tokens[0].size() + answer.tokens[1].size());
  EXPECT_TRUE(wait_idle());
  EXPECT_TRUE(wait_until([&] { return !cancel("victim"); }));
}

TEST_F(GenerateTest, RefusesInvalidFieldsByName) {
  start_workers();
  const struct {
    const char* says;
    std::function<void(v1::GenerateRequest&)> spoil;
  } cases[] = {
      {"`temperature` is 3", [](auto& r) { r.set_temperature(3); }},
      {"`temperature` is nan", [](auto& r) { r.set_temperature(NAN); }},
      {"`top_p` is 0", [](auto& r) { r.set_top_p(0); }},
      {"`top_p` is nan", [](auto& r) { r.set_top_p(NAN); }},
      {"`min_p` is nan", [](auto& r) { r.set_min_p(NAN); }},
      {"`temperature` is inf", [](auto& r) { r.set_temperature(INFINITY); }},
      {"`top_k` is -5", [](auto& r) { r.set_top_k(-5); }},
      {"`min_p` is 2", [](auto& r) { r.set_min_p(2); }},
      {"`n` is 0", [](auto& r) { r.set_n(0); }},
      {"`n` is 4294967295", [](auto& r) { r.set_n(0xFFFFFFFF); }},
      {"`logprobs` is 21", [](auto& r) { r.set_logprobs(21); }},
      {"`logprobs` is 64", [](auto& r) { r.set_logprobs(64); }},  // the vocabulary
      {"`logprobs` is 4294967295", [](auto& r) { r.set_logprobs(0xFFFFFFFF); }},
      {"`max_tokens` is 0", [](auto& r) { r.set_max_tokens(0); }},
      {"`max_tokens` is 4294967295", [](auto& r) { r.set_max_tokens(0xFFFFFFFF); }},
      {"`max_tokens` is 510 and the prompt has 5 tokens", [](auto& r) { r.set_max_tokens(510); }},
      {"`stop` string 0", [](auto& r) { r.add_stop(""); }},
      {"`stop` string 0", [](auto& r) { r.add_stop(std::string(257, 'a')); }},
      {"`stop` has 17",
       [](auto& r) {
         for (int i = 0; i < 17; ++i) r.add_stop("a");
       }},
      {"`stop` has 1000",
       [](auto& r) {
         for (int i = 0; i < 1000; ++i) r.add_stop("a");
       }},
      {"`stop` string 0", [](auto& r) { r.add_stop(std::string(1 << 20, 'a')); }},
      {"`stop_token_ids`", [](auto& r) { r.add_stop_token_ids(64); }},
      {"`stop_token_ids`", [](auto& r) { r.add_stop_token_ids(-1); }},
      {"`presence_penalty` is -3", [](auto& r) { r.set_presence_penalty(-3); }},
      {"`frequency_penalty` is nan", [](auto& r) { r.set_frequency_penalty(NAN); }},
      {"`repetition_penalty` is 0", [](auto& r) { r.set_repetition_penalty(0); }},
      {"`logit_bias` entry 0 is 64", [](auto& r) { (*r.mutable_logit_bias())[64] = 1; }},
      {"`logit_bias` has 301",
       [](auto& r) {
         for (int i = 0; i < 301; ++i) (*r.mutable_logit_bias())[i] = 1;
       }},
      {"`logit_bias` entry 0 is -1", [](auto& r) { (*r.mutable_logit_bias())[-1] = 1; }},
      {"`logit_bias` of id 5 is nan", [](auto& r) { (*r.mutable_logit_bias())[5] = NAN; }},
      {"`presence_penalty` is 1e+09", [](auto& r) { r.set_presence_penalty(1e9f); }},
      {"`repetition_penalty` is nan", [](auto& r) { r.set_repetition_penalty(NAN); }},
      {"`logit_bias` of id 5 is 101", [](auto& r) { (*r.mutable_logit_bias())[5] = 101; }},
      {"`min_tokens` is 11, but the answer has at most 10", [](auto& r) { r.set_min_tokens(11); }},
      {"`min_tokens` is 2147483647", [](auto& r) { r.set_min_tokens(0xFFFFFFFF); }},
      {"`allowed_token_ids` entry 0 is -1", [](auto& r) { r.add_allowed_token_ids(-1); }},
      {"`text` is empty", [](auto& r) { r.set_text(""); }},
      {"`text` has 600 tokens", [](auto& r) { r.set_text(std::string(600, 'a')); }},
      {"`token_ids` is empty", [](auto& r) { r.mutable_token_ids(); }},
      {"`token_ids` entry 1 is 64",
       [](auto& r) {
         r.mutable_token_ids()->add_ids(1);
         r.mutable_token_ids()->add_ids(64);
       }},
      {"`token_ids` entry 0 is -1", [](auto& r) { r.mutable_token_ids()->add_ids(-1); }},
      {"`token_ids` has 1000000 tokens",
       [](auto& r) {
         for (int i = 0; i < 1000000; ++i) r.mutable_token_ids()->add_ids(1);
       }},
      {"`input` is missing", [](auto& r) { r.clear_input(); }},
      {"`messages`", [](auto& r) { r.mutable_chat(); }},
      {"`messages` cannot be used",  // this model has no chat template
       [](auto& r) { r.mutable_chat()->add_messages()->set_role("user"); }},
      {"`request_id` has 200", [](auto& r) { r.set_request_id(std::string(200, 'i')); }},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.says);
    v1::GenerateRequest r = request("hello", 10);
    c.spoil(r);
    const Answer answer = generate(r);
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(answer.status.error_message(), StartsWith(c.says));
    EXPECT_EQ(answer.messages, 0);
  }
  EXPECT_TRUE(generate(request("hello", 10)).status.ok());
}

// Larger than a message may be, and bytes that are no text: the call fails before anybody looks at
// it, and the next one is served.
TEST_F(GenerateTest, RefusesWhatIsNoMessageOfOurs) {
  start_workers();
  v1::GenerateRequest large = request("hello", 10);
  large.mutable_token_ids()->mutable_ids()->Resize(10'000'000, 1);
  EXPECT_EQ(generate(large).status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  v1::GenerateRequest no_text = request("hello", 10);
  no_text.set_text("a\xff");
  EXPECT_FALSE(generate(no_text).status.ok());
  EXPECT_EQ(generate(request("hello", 10)).tokens[0], oracle("hello", 10));
}

TEST_F(GenerateTest, RefusesAnUnknownModelAndServesItsOwnName) {
  start_workers();
  v1::GenerateRequest r = request("hello", 10);
  r.set_model("gpt-9");
  const Answer answer = generate(r);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("serves \"letters\""));
  r.set_model("letters");
  EXPECT_TRUE(generate(r).status.ok());

  grpc::ClientContext context;
  v1::ModelsReply models;
  ASSERT_TRUE(stub_->Models(&context, {}, &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).id(), "letters");
  EXPECT_EQ(models.models(0).max_model_len(), 512u);
  EXPECT_EQ(models.models(0).tensor_parallel_size(), 2u);
}

TEST_F(GenerateTest, IsUnavailableWithoutWorkers) {
  EXPECT_EQ(generate(request("hello", 10)).status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GenerateTest, ARunningRequestIdIsNotTakenTwice) {
  start_workers();
  gate_.close_after(4);
  v1::GenerateRequest r = request("hello", 30);
  r.set_request_id("same");
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, r);
  v1::GenerateReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  EXPECT_EQ(generate(r).status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  gate_.open();
  while (reader->Read(&reply)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(GenerateTest, StoppingEndsOpenStreamsAsUnavailable) {
  start_workers();
  gate_.close_after(6);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request("hello", 400));
  v1::GenerateReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  engine_->stop();
  generation_->stop(absl::Seconds(20));
  while (reader->Read(&reply)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GenerateTest, AnAnswerSurvivesTheLossOfTheGroup) {
  start_workers();
  gate_.close_after(40);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request("hello", 300));
  Answer answer;
  v1::GenerateReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  answer.take(reply);
  gate_.open();
  group_.reset();  // all ranks die
  start_workers();
  while (reader->Read(&reply)) answer.take(reply);
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(answer.tokens[0], oracle("hello", 300));
  EXPECT_EQ(answer.text[0], text_of(oracle("hello", 300)));
}

class SlowClientTest : public GenerateTest {
 protected:
  GenerationService::Options options() override {
    GenerationService::Options small;
    small.max_buffered_bytes = 64 << 10;
    return small;
  }
};

TEST_F(SlowClientTest, AClientThatDoesNotReadIsDropped) {
  start_workers();
  v1::GenerateRequest r = request("slow", 500);
  r.set_n(8);
  r.set_logprobs(20);  // about two megabytes in all
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, r);
  EXPECT_TRUE(wait_until([this] { return engine_->stats().finished_abort > 0; }));
  v1::GenerateReply reply;
  while (reader->Read(&reply)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("reads too slowly"));
  EXPECT_TRUE(wait_idle());
}

class StuckClientTest : public GenerateTest {
 protected:
  static constexpr absl::Duration kTimeout = absl::Milliseconds(100);
  GenerationService::Options options() override {
    GenerationService::Options patient;
    patient.max_buffered_bytes = std::size_t{1} << 30;
    patient.write_timeout = kTimeout;
    return patient;
  }
};

TEST_F(StuckClientTest, AClientThatTakesNothingLosesItsRequest) {
  start_workers();
  gate_.close_after(200);
  v1::GenerateRequest r = request("stuck", 500);
  r.set_n(8);
  r.set_logprobs(20);  // 200 steps are far more than the connection holds
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, r);
  // A machine so slow that a write has already waited for too long is as good.
  ASSERT_TRUE(wait_until([this] {
    const EngineStats stats = engine_->stats();
    return stats.steps >= 150 || stats.finished_abort > 0;
  }));
  absl::SleepFor(2 * kTimeout);  // what is under test is that this much time has passed
  gate_.open();
  EXPECT_TRUE(wait_until([this] { return engine_->stats().finished_abort > 0; }));
  v1::GenerateReply reply;
  while (reader->Read(&reply)) {
  }
  EXPECT_THAT(reader->Finish().error_message(), HasSubstr("took nothing for"));
  EXPECT_TRUE(wait_idle());
}

class ApiKeyTest : public GenerateTest {
 protected:
  EngineConfig make_config() override {
    EngineConfig config = GenerateTest::make_config();
    config.api_key = "sesame";
    return config;
  }
};

TEST_F(ApiKeyTest, AsksForTheKeyOnEveryCall) {
  start_workers();
  for (const char* given : {"", "sesame", "Bearer", "Bearer ", "Bearer sesam", "Bearer sesame1"}) {
    SCOPED_TRACE(given);
    grpc::ClientContext context;
    if (*given != '\0') context.AddMetadata("authorization", given);
    EXPECT_EQ(generate(request("a", 3), &context).status.error_code(),
              grpc::StatusCode::UNAUTHENTICATED);
  }
  grpc::ClientContext models, cancel;
  v1::ModelsReply models_reply;
  v1::CancelReply cancel_reply;
  EXPECT_EQ(stub_->Models(&models, {}, &models_reply).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(stub_->Cancel(&cancel, {}, &cancel_reply).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer sesame");
  EXPECT_TRUE(generate(request("a", 3), &context).status.ok());
}

}  // namespace
}  // namespace quire::test
