// Penalties, biases, bans and masks through a real server over two ranks: that each does to the
// model's answer what it is for. By gRPC; tests/e2e/openai_test.py asks by HTTP.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/e2e/server.h"
#include "tests/test_data.h"

namespace quire::test {
namespace {

using testing::Contains;
using testing::Each;
using testing::Not;

class AdjustedAnswers : public testing::Test {
 protected:
  void SetUp() override {
    QUIRE_NEED_DATA(demo_model());
    auto server = Server::start(demo_model(), 2);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  static v1::GenerateRequest request(const std::string& text, int max_tokens) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.set_temperature(0);
    request.set_max_tokens(static_cast<std::uint32_t>(max_tokens));
    request.set_ignore_eos(true);
    return request;
  }
  Generated run(const v1::GenerateRequest& request) {
    auto got = generate(*server_, request);
    EXPECT_TRUE(got.ok()) << got.status();
    return got.ok() ? *std::move(got) : Generated();
  }
  std::unique_ptr<Server> server_;
};

std::size_t num_distinct(const std::vector<int>& tokens) {
  return std::set<int>(tokens.begin(), tokens.end()).size();
}

TEST_F(AdjustedAnswers, AreWhatWasAskedFor) {
  const v1::GenerateRequest plain = request("The capital of France is", 24);
  const Generated unchanged = run(plain);
  ASSERT_EQ(unchanged.tokens.size(), 24u);

  v1::GenerateRequest banned = plain;
  (*banned.mutable_logit_bias())[unchanged.tokens[0]] = -100;
  EXPECT_THAT(run(banned).tokens, Not(Contains(unchanged.tokens[0])));

  v1::GenerateRequest forced = plain;
  (*forced.mutable_logit_bias())[unchanged.tokens[0]] = 100;
  EXPECT_THAT(run(forced).tokens, Each(unchanged.tokens[0]));

  v1::GenerateRequest allowed = plain;
  const std::set<int> few(unchanged.tokens.begin(), unchanged.tokens.begin() + 3);
  for (const int id : few) allowed.add_allowed_token_ids(id);
  for (const int id : run(allowed).tokens) EXPECT_THAT(few, Contains(id));
  EXPECT_EQ(run(plain).tokens, unchanged.tokens);
}

TEST_F(AdjustedAnswers, PenaltiesBreakLoops) {
  const v1::GenerateRequest plain = request("one two one two one two one two one two", 48);
  const Generated loop = run(plain);
  ASSERT_LT(num_distinct(loop.tokens), 30u) << "the model does not loop here";
  const auto distinct = [&](auto set) {
    v1::GenerateRequest request = plain;
    set(request);
    return num_distinct(run(request).tokens);
  };
  const std::size_t before = num_distinct(loop.tokens);
  EXPECT_GT(distinct([](auto& r) { r.set_repetition_penalty(1.5f); }), before);
  EXPECT_GT(distinct([](auto& r) { r.set_frequency_penalty(2.0f); }), before);
  EXPECT_GT(distinct([](auto& r) { r.set_presence_penalty(2.0f); }), before);
}

TEST_F(AdjustedAnswers, MinTokensGoesOnPastEos) {
  v1::GenerateRequest question;
  v1::Message* message = question.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("Say yes.");
  question.set_temperature(0);
  question.set_max_tokens(120);
  const Generated stops = run(question);
  ASSERT_EQ(stops.finish_reason, "stop");
  const int length = stops.completion_tokens;
  ASSERT_LT(length, 100);
  question.set_min_tokens(static_cast<std::uint32_t>(length + 10));
  const Generated longer = run(question);
  EXPECT_GE(longer.completion_tokens, length + 10);
  // The answer is the same up to where it would have ended.
  EXPECT_TRUE(std::equal(stops.tokens.begin(), stops.tokens.end() - 1, longer.tokens.begin()));
}

}  // namespace
}  // namespace quire::test
