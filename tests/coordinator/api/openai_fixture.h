// The HTTP API over a real engine; only the worker group is a fake, whose every answer is known.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/metrics.h"
#include "coordinator/api/answer_book.h"
#include "coordinator/api/http_server.h"
#include "coordinator/engine/engine.h"
#include "coordinator/journal/journal.h"
#include "tests/coordinator/api/http_client.h"
#include "tests/coordinator/api/letter_tokenizer.h"
#include "tests/fakes/hash_group.h"

namespace quire::test {

using Json = nlohmann::json;

inline constexpr std::uint64_t kSeed = 7;

// role, content, ..., then "Q" where the answer begins.
inline constexpr char kLetterTemplate[] =
    "{% for message in messages %}"
    "{% if message['role'] == 'forbidden' %}{{ raise_exception('no such role') }}{% endif %}"
    "{{ message['role'] + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}Q{% endif %}";

class OpenAiTest : public ::testing::Test {
 protected:
  struct Options {
    std::string api_key{};
    std::vector<TokenId> eos{};
    absl::Duration step = absl::ZeroDuration();  // of the workers
    int max_model_len = 2048;
    bool attach = true;
    int max_num_seqs = 64;
    int max_num_queued_reqs = 8192;
    std::string policy = "auto";
    std::vector<TenantEntry> tenants{};
    std::string journal{};  // its file; empty: none
    absl::Duration grace = absl::Seconds(30);
  };

  void SetUp() override { start({}); }
  void TearDown() override { stop(); }

  void start(const Options& options) {
    stop();
    config_ = EngineConfig();
    config_.api_key = options.api_key;
    config_.max_model_len = options.max_model_len;
    config_.max_num_seqs = options.max_num_seqs;
    config_.max_num_queued_reqs = options.max_num_queued_reqs;
    config_.scheduling_policy = options.policy;
    model_ = letter_model(options.max_model_len);
    model_.spec.eos = options.eos;
    auto chat_template = ChatTemplate::parse(kLetterTemplate);
    ASSERT_TRUE(chat_template.ok()) << chat_template.status();
    model_.text.chat_template = *std::move(chat_template);
    metrics_ = std::make_unique<Metrics>(model_.name, options.max_model_len);
    tenants_ = options.tenants;
    std::vector<Tenant> shares;
    for (const TenantEntry& tenant : tenants_) {
      shares.push_back(
          {tenant.name, tenant.weight, tenant.max_requests, tenant.max_waiting_tokens});
    }
    engine_ = std::make_unique<Engine>(config_, model_.spec, absl::ZeroDuration(), shares);
    HashWorkerConfig worker;
    worker.num_blocks = 1024;
    worker.block_size = config_.block_size;
    worker.max_num_seqs = config_.max_num_seqs;
    worker.max_num_batched_tokens = config_.max_num_batched_tokens;
    group_ = std::make_unique<HashGroup>(worker, options.step);
    book_ = std::make_unique<AnswerBook>(engine_.get(), AnswerBookOptions{.grace = options.grace});
    if (!options.journal.empty()) take_up(options.journal);
    engine_->start(group_.get());
    auto server = HttpServer::start({.config = &config_,
                                     .model = &model_,
                                     .engine = engine_.get(),
                                     .metrics = metrics_.get(),
                                     .tenants = tenants_,
                                     .book = book_.get(),
                                     .is_journaled = journal_ != nullptr},
                                    "127.0.0.1", 0);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    if (options.attach) attach();
  }

  void take_up(const std::string& path) {
    JournalOptions options;
    options.path = path;
    for (const TenantEntry& tenant : tenants_) options.tenants.push_back(tenant.name);
    auto journal = Journal::open(options);
    ASSERT_TRUE(journal.ok()) << journal.status();
    journal_ = *std::move(journal);
    engine_->set_journal(journal_.get());
    engine_->set_first_request(journal_->last_request() + 1);
    num_resumed_ = book_->restore(journal_->take_saved());
  }

  void attach() {
    group_->attach(engine_.get());
    ASSERT_TRUE(wait_until([this] { return engine_->stats().ready; }));
  }

  void stop() {
    if (engine_ != nullptr) engine_->stop();
    if (journal_ != nullptr) journal_->close();
    server_.reset();
    book_.reset();
    if (group_ != nullptr) {
      EXPECT_EQ(group_->protocol_error(), "");
    }
    group_.reset();
    engine_.reset();
    journal_.reset();
  }

  template <typename Predicate>
  bool wait_until(Predicate predicate) {
    const absl::Time deadline = absl::Now() + kHttpPatience;
    while (!predicate()) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }
  bool wait_idle() {
    return wait_until([this] {
      const EngineStats stats = engine_->stats();
      return stats.running == 0 && stats.waiting == 0 && stats.used_blocks == 0;
    });
  }

  int port() const { return server_->port(); }

  HttpAnswer ask(const std::string& path, const Json& body, const std::string& headers = "") {
    return fetch(port(), post(path, body.dump(), "Content-Type: application/json\r\n" + headers));
  }
  Json complete(const Json& body) {
    const HttpAnswer answer = ask("/v1/completions", body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json();
  }
  Json chat(const Json& body) {
    const HttpAnswer answer = ask("/v1/chat/completions", body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json();
  }
  std::vector<Json> stream(const std::string& path, Json body) {
    body["stream"] = true;
    HttpClient client(port());
    client.send(post(path, body.dump()));
    const HttpAnswer head = client.read_head();
    EXPECT_EQ(head.status, 200);
    return read_events(client);
  }

  static Json usage(int prompt, int completion, int cached = 0) {
    return {{"prompt_tokens", prompt},
            {"completion_tokens", completion},
            {"total_tokens", prompt + completion},
            {"prompt_tokens_details", {{"cached_tokens", cached}}}};
  }
  std::vector<TokenId> encode(const std::string& text) {
    return model_.text.tokenizer->encode(text, false, false).value();
  }
  // What the hash model answers.
  std::vector<TokenId> oracle(const std::string& prompt, int count, int choice = 0,
                              std::uint64_t seed = kSeed) {
    std::vector<TokenId> tokens = encode(prompt), out;
    for (int i = 0; i < count; ++i) {
      out.push_back(HashModel{}.next(tokens, seed, choice));
      tokens.push_back(out.back());
    }
    return out;
  }
  std::string decode(const std::vector<TokenId>& tokens) {
    return model_.text.tokenizer->decode(tokens, true);
  }
  std::string oracle_text(const std::string& prompt, int count, int choice = 0) {
    return decode(oracle(prompt, count, choice));
  }

  EngineConfig config_;
  ServedModel model_;
  std::vector<TenantEntry> tenants_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<AnswerBook> book_;
  int num_resumed_ = 0;  // requests that went on when it started
  std::unique_ptr<HashGroup> group_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace quire::test
