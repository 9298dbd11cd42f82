// How requests wait and end over gRPC: deadlines, full queues, tenants, the best of several.
#include <gmock/gmock.h>

#include "absl/strings/numbers.h"
#include "tests/coordinator/api/grpc_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class GrpcQueueTest : public GenerateTest {};

TEST_F(GrpcQueueTest, ATimeoutEndsAnAnswerWithWhatItHas) {
  start_workers();
  gate_.close_after(20);
  v1::GenerateRequest r = request("late", 400);
  r.set_n(2);
  r.set_timeout_ms(1500);
  const Answer answer = generate(r);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.finish.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const auto index = static_cast<std::size_t>(i);
    EXPECT_EQ(answer.finish[index], "deadline");
    EXPECT_FALSE(answer.tokens[index].empty());
    EXPECT_THAT(text_of(oracle("late", 400, i)), StartsWith(answer.text[index]));
  }
  EXPECT_EQ(answer.usage_messages, 1);
  EXPECT_EQ(answer.usage.completion_tokens(), answer.tokens[0].size() + answer.tokens[1].size());
  gate_.open();
  EXPECT_TRUE(wait_idle());
}

TEST_F(GrpcQueueTest, ATimeoutThatLeavesNothingIsAnError) {
  start_workers();
  gate_.close_after(0);
  for (const std::uint32_t n : {1u, 3u}) {
    v1::GenerateRequest r = request("late", 400);
    r.set_n(n);
    r.set_timeout_ms(50);
    const Answer answer = generate(r);
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    EXPECT_THAT(answer.status.error_message(), HasSubstr("before it had a single token"));
    EXPECT_EQ(answer.messages, 0);
  }
  gate_.open();
  EXPECT_TRUE(wait_idle());
}

TEST_F(GrpcQueueTest, BestOfReturnsTheLikeliest) {
  start_workers();
  constexpr int kMade = 7, kLength = 60;
  const TokenId stop = 9;
  std::vector<std::pair<std::ptrdiff_t, int>> lengths;  // tokens, choice
  for (int i = 0; i < kMade; ++i) {
    const std::vector<TokenId> tokens = oracle("hello", kLength, i);
    const auto at = std::find(tokens.begin(), tokens.end(), stop);
    lengths.emplace_back(std::min<std::ptrdiff_t>(at - tokens.begin() + 1, kLength), i);
  }
  // The hash model's logprobs fall with the position: the shortest have the best means.
  std::stable_sort(lengths.begin(), lengths.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  ASSERT_NE(lengths[0].first, lengths[1].first) << "another stop token is needed";
  v1::GenerateRequest r = request("hello", kLength);
  r.add_stop_token_ids(stop);
  r.set_best_of(kMade);
  r.set_n(2);
  const Answer answer = generate(r);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.tokens.size(), 2u);
  std::size_t made = 0;
  for (const auto& [length, choice] : lengths) made += static_cast<std::size_t>(length);
  for (std::size_t i = 0; i < 2; ++i) {
    const auto [length, choice] = lengths[i];
    EXPECT_EQ(answer.tokens[i], oracle("hello", static_cast<int>(length), choice));
  }
  EXPECT_TRUE(answer.logprobs.empty()) << "nobody asked for them";
  EXPECT_EQ(answer.usage.completion_tokens(), made);
}

TEST_F(GrpcQueueTest, BeamsComeWholeAndUsageTellsWhatWasCached) {
  start_workers();
  const std::string prompt(75, 'p');
  v1::GenerateRequest r = request(prompt, 30);
  r.set_n(2);
  r.set_best_of(4);
  r.set_use_beam_search(true);
  const Answer first = generate(r);
  ASSERT_TRUE(first.status.ok()) << first.status.error_message();
  EXPECT_EQ(first.messages, 3);  // two choices, usage
  ASSERT_EQ(first.tokens.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(first.finish[i], "length");
    EXPECT_EQ(first.tokens[i].size(), 30u);
    EXPECT_EQ(first.text[i], text_of(first.tokens[i]));
  }
  EXPECT_NE(first.tokens[0], first.tokens[1]);
  EXPECT_EQ(first.usage.completion_tokens(), 60u);
  EXPECT_EQ(first.usage.cached_tokens(), 0u);
  const Answer again = generate(r);
  EXPECT_EQ(again.tokens, first.tokens);
  EXPECT_GE(again.usage.cached_tokens(), 64u);
  EXPECT_LT(again.usage.cached_tokens(), 75u);
  EXPECT_GE(generate(request(prompt, 3)).usage.cached_tokens(), 64u);
}

TEST_F(GrpcQueueTest, RefusesWhatContradictsByName) {
  start_workers();
  const struct {
    const char* says;
    std::function<void(v1::GenerateRequest&)> spoil;
  } cases[] = {
      {"`priority` is 1, but", [](auto& r) { r.set_priority(1); }},
      {"`priority` is -2147483648", [](auto& r) { r.set_priority(-2147483647 - 1); }},
      {"`timeout_ms` is 0", [](auto& r) { r.set_timeout_ms(0); }},
      {"`cache_salt` has 0 characters", [](auto& r) { r.set_cache_salt(""); }},
      {"`best_of` is 0", [](auto& r) { r.set_best_of(0); }},
      {"`best_of` is 4294967295", [](auto& r) { r.set_best_of(0xFFFFFFFF); }},
      {"`length_penalty` changes nothing", [](auto& r) { r.set_length_penalty(2); }},
      {"`early_stopping` is 7", [](auto& r) { r.set_early_stopping(v1::EarlyStopping(7)); }},
      {"`early_stopping` changes nothing",
       [](auto& r) { r.set_early_stopping(v1::EARLY_STOPPING_NEVER); }},
      {"`length_penalty` is nan",
       [](auto& r) {
         r.set_use_beam_search(true);
         r.set_length_penalty(NAN);
       }},
      {"`stop` cannot be used with `use_beam_search`",
       [](auto& r) {
         r.set_use_beam_search(true);
         r.add_stop("x");
       }},
      {"`n` is 17; with `use_beam_search`",
       [](auto& r) {
         r.set_use_beam_search(true);
         r.set_n(17);
       }},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.says);
    v1::GenerateRequest r = request("hello", 10);
    c.spoil(r);
    const Answer answer = generate(r);
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(answer.status.error_message(), StartsWith(c.says));
  }
  v1::GenerateRequest neutral = request("hello", 10);
  neutral.set_priority(0);
  neutral.set_timeout_ms(~std::uint64_t{0});
  neutral.set_length_penalty(1);
  neutral.set_best_of(1);
  EXPECT_EQ(generate(neutral).tokens[0], oracle("hello", 10));
}

class FullQueueTest : public GenerateTest {
 protected:
  EngineConfig make_config() override {
    EngineConfig config = GenerateTest::make_config();
    config.max_num_seqs = 1;
    config.max_num_queued_reqs = 1;
    return config;
  }
};

TEST_F(FullQueueTest, SaysWhenToComeAgain) {
  start_workers();
  gate_.close_after(5);
  grpc::ClientContext contexts[2];
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateReply>>> readers;
  for (int i = 0; i < 2; ++i) {  // one runs, one waits
    readers.push_back(stub_->Generate(&contexts[i], request("hello", 20)));
    ASSERT_TRUE(
        wait_until([&] { return engine_->stats().running + engine_->stats().waiting == i + 1; }));
  }
  const Answer refused = generate(request("more", 5));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("1 requests wait, and at most 1 may"));
  std::int64_t ms = 0;
  ASSERT_TRUE(absl::SimpleAtoi(refused.retry_ms, &ms)) << refused.retry_ms;
  EXPECT_GE(ms, 1000);
  EXPECT_LE(ms, 600000);
  gate_.open();
  for (const auto& reader : readers) {
    Answer answer;
    v1::GenerateReply reply;
    while (reader->Read(&reply)) answer.take(reply);
    EXPECT_TRUE(reader->Finish().ok());
    EXPECT_EQ(answer.tokens[0], oracle("hello", 20));
  }
}

class GrpcTenantsTest : public GenerateTest {
 protected:
  void SetUp() override {
    tenants_ = {{"a", "key-a", 1.0}, {"b", "key-b", 1.0}};
    GenerateTest::SetUp();
  }
  std::vector<Tenant> make_tenants() override { return {{"a", 1.0}, {"b", 1.0}}; }
  static void sign(grpc::ClientContext& context, const char* key) {
    context.AddMetadata("authorization", std::string("Bearer ") + key);
  }
};

TEST_F(GrpcTenantsTest, DoNotSeeEachOthersRequests) {
  start_workers();
  gate_.close_after(8);
  v1::GenerateRequest r = request("long", 60);
  r.set_request_id("same");
  grpc::ClientContext a, b, stranger;
  sign(a, "key-a");
  sign(b, "key-b");
  sign(stranger, "key-c");
  EXPECT_EQ(generate(r, &stranger).status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  auto of_a = stub_->Generate(&a, r);
  v1::GenerateReply reply;
  ASSERT_TRUE(of_a->Read(&reply));
  const auto cancel = [this](const char* key) {
    grpc::ClientContext call;
    sign(call, key);
    v1::CancelRequest what;
    what.set_request_id("same");
    v1::CancelReply found;
    EXPECT_TRUE(stub_->Cancel(&call, what, &found).ok());
    return found.found();
  };
  EXPECT_FALSE(cancel("key-b")) << "it is not b's";
  gate_.open();
  EXPECT_EQ(generate(r, &b).tokens[0], oracle("long", 60)) << "the same id is free for b";
  Answer answer;
  answer.take(reply);
  while (of_a->Read(&reply)) answer.take(reply);
  EXPECT_TRUE(of_a->Finish().ok());
  EXPECT_EQ(answer.tokens[0], oracle("long", 60));
}

}  // namespace
}  // namespace quire::test
