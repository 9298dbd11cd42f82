// Resume: the rest of an answer whose call broke, exactly once.
#include <gmock/gmock.h>

#include "tests/coordinator/api/grpc_fixture.h"

namespace quire::test {
namespace {

class GrpcResumeTest : public GenerateTest {
 protected:
  EngineConfig make_config() override {
    EngineConfig config = GenerateTest::make_config();
    config.max_model_len = 2048;
    return config;
  }
  v1::GenerateRequest resumable(const std::string& id, std::uint32_t max_tokens) {
    v1::GenerateRequest r = request("hello", max_tokens);
    r.set_request_id(id);
    r.set_resumable(true);
    return r;
  }
  // Reads until so many tokens have come, then hangs up.
  void break_off(const v1::GenerateRequest& r, std::size_t num_tokens, Answer* answer) {
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, r);
    v1::GenerateReply reply;
    while (answer->tokens.empty() || answer->tokens[0].size() < num_tokens) {
      ASSERT_TRUE(reader->Read(&reply));
      answer->take(reply);
    }
    context.TryCancel();
    while (reader->Read(&reply)) {
    }
    reader->Finish();
  }
  // As a client would: again while the server has not noticed that the call before is gone.
  grpc::Status resume(const std::string& id, Answer* answer) {
    v1::ResumeRequest r;
    r.set_request_id(id);
    for (std::size_t i = 0; i < answer->tokens.size(); ++i) {
      v1::Received* received = r.add_received();
      received->set_index(static_cast<std::uint32_t>(i));
      received->set_num_tokens(static_cast<std::uint32_t>(answer->tokens[i].size()));
      received->set_finished(!answer->finish[i].empty());
    }
    grpc::Status status;
    const bool answered = wait_until([&] {
      grpc::ClientContext context;
      auto reader = stub_->Resume(&context, r);
      v1::GenerateReply reply;
      while (reader->Read(&reply)) answer->take(reply);
      status = reader->Finish();
      return status.error_code() != grpc::StatusCode::ALREADY_EXISTS;
    });
    EXPECT_TRUE(answered);
    return status;
  }
};

TEST_F(GrpcResumeTest, TheRestComesExactlyOnce) {
  start_workers();
  gate_.close_after(40);
  v1::GenerateRequest r = resumable("mine", 200);
  r.set_n(2);
  Answer answer;
  break_off(r, 20, &answer);
  gate_.open();
  ASSERT_TRUE(resume("mine", &answer).ok());
  for (int i = 0; i < 2; ++i) {
    const auto at = static_cast<std::size_t>(i);
    EXPECT_EQ(answer.tokens[at], oracle("hello", 200, i));
    EXPECT_EQ(answer.text[at], text_of(oracle("hello", 200, i)));
    EXPECT_EQ(answer.finish[at], "length");
  }
  EXPECT_EQ(answer.usage.completion_tokens(), 400u);
  Answer again;  // and once more from the beginning
  ASSERT_TRUE(resume("mine", &again).ok());
  EXPECT_EQ(again.tokens, answer.tokens);
}

// A client takes messages of 4 MB: what is sent again at once must not be one of them.
TEST_F(GrpcResumeTest, ALongAnswerComesInSeveralMessages) {
  start_workers();
  v1::GenerateRequest r = resumable("mine", 1500);
  r.set_logprobs(20);
  Answer answer;
  break_off(r, 1, &answer);
  ASSERT_TRUE(wait_until([this] { return engine_->stats().generation_tokens == 1500; }));
  v1::ResumeRequest all;
  all.set_request_id("mine");
  grpc::ClientContext context;
  auto reader = stub_->Resume(&context, all);
  v1::GenerateReply reply;
  Answer again;
  while (reader->Read(&reply)) {
    EXPECT_LE(reply.delta().token_ids_size(), 1024);
    EXPECT_EQ(reply.delta().logprobs_size(), reply.delta().token_ids_size());
    again.take(reply);
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(again.tokens[0], oracle("hello", 1500));
  EXPECT_EQ(again.text[0], text_of(oracle("hello", 1500)));
  EXPECT_EQ(again.finish[0], "length");
}

TEST_F(GrpcResumeTest, AStopStringThatComesWhileNobodyListensEndsTheEngine) {
  start_workers();
  gate_.close_after(10);
  const std::string whole = text_of(oracle("hello", 400));
  v1::GenerateRequest r = resumable("mine", 400);
  r.add_stop(whole.substr(100, 5));
  Answer answer;
  break_off(r, 3, &answer);
  gate_.close_after(200);
  EXPECT_TRUE(wait_until([this] { return engine_->stats().generation_tokens > 150; }));
  ASSERT_TRUE(resume("mine", &answer).ok());
  EXPECT_EQ(answer.text[0], whole.substr(0, whole.find(whole.substr(100, 5))));
  EXPECT_EQ(answer.finish[0], "stop");
  gate_.open();
  EXPECT_TRUE(wait_idle());
  EXPECT_EQ(engine_->stats().finished_stop, 1u);
}

TEST_F(GrpcResumeTest, CancelEndsACallThatCouldBeResumed) {
  start_workers();
  gate_.close_after(10);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, resumable("mine", 400));
  Answer answer;
  v1::GenerateReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  answer.take(reply);
  ASSERT_TRUE(cancel("mine"));
  gate_.open();
  while (reader->Read(&reply)) answer.take(reply);
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(answer.finish[0], "cancelled");
  EXPECT_TRUE(wait_idle());
}

TEST_F(GrpcResumeTest, CancelEndsWhatNobodyListensTo) {
  start_workers();
  gate_.close_after(10);
  Answer answer;
  break_off(resumable("mine", 400), 3, &answer);
  ASSERT_TRUE(cancel("mine"));
  gate_.open();
  EXPECT_TRUE(wait_idle());
  EXPECT_TRUE(wait_until([&] {
    Answer rest = answer;
    return resume("mine", &rest).error_code() == grpc::StatusCode::NOT_FOUND;
  }));
}

TEST_F(GrpcResumeTest, WhatIsNotKeptIsNotFound) {
  start_workers();
  Answer answer = generate(request("hello", 5));
  ASSERT_TRUE(answer.status.ok());
  Answer rest;
  EXPECT_EQ(resume(answer.request_id, &rest).error_code(), grpc::StatusCode::NOT_FOUND);
  // Nor is an answer of HTTP, whatever its key looks like.
  auto record = std::make_shared<AnswerRecord>();
  record->name = "cmpl-1";
  record->endpoint = "/v1/completions";
  record->key = "grpc:mine";
  ASSERT_TRUE(book_->open(record, 0, [](KeptAnswer& fresh) { fresh.add_prompt(1); }).ok());
  EXPECT_EQ(resume("mine", &rest).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(GrpcResumeTest, MoreThanThereIsIsRefused) {
  start_workers();
  ASSERT_TRUE(generate(resumable("mine", 5)).status.ok());
  Answer rest;
  rest.tokens = {std::vector<TokenId>(6)};
  rest.text = rest.finish = rest.stop_reason = {""};
  EXPECT_EQ(resume("mine", &rest).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace quire::test
