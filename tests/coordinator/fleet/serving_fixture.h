// A real Engine and a real Fleet behind a real gRPC server on a free loopback port; only the
// workers are fakes. Also collects what requests gained and knows what they should have.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/engine/engine.h"
#include "coordinator/fleet/fleet.h"
#include "tests/coordinator/fleet/fake_worker.h"

namespace quire::test {

inline constexpr absl::Duration kPatience = absl::Seconds(60);

// What one request gained; deliver() is its DeliverFn.
class Collector {
 public:
  explicit Collector(int n = 1) : tokens_(static_cast<std::size_t>(n)), open_(n) {}

  void deliver(const OutputDelta& delta) {
    absl::MutexLock lock(&mutex_);
    auto& tokens = tokens_[static_cast<std::size_t>(delta.choice)];
    tokens.insert(tokens.end(), delta.tokens.begin(), delta.tokens.end());
    if (delta.finish == FinishReason::kNone) return;
    last_finish_ = delta.finish;
    --open_;
  }
  bool wait_done() {
    absl::MutexLock lock(&mutex_);
    const auto done = [this] { return open_ == 0; };
    return mutex_.AwaitWithTimeout(absl::Condition(&done), kPatience);
  }
  bool wait_tokens(std::size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [this, count] { return tokens_[0].size() >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience);
  }
  std::vector<TokenId> tokens(int choice = 0) {
    absl::MutexLock lock(&mutex_);
    return tokens_[static_cast<std::size_t>(choice)];
  }
  FinishReason finish() {
    absl::MutexLock lock(&mutex_);
    return last_finish_;
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::vector<TokenId>> tokens_;
  int open_;
  FinishReason last_finish_ = FinishReason::kNone;
};

// What the hash model answers to `prompt` with `count` tokens (it has no eos).
inline std::vector<TokenId> expected_tokens(std::vector<TokenId> prompt, int count,
                                            std::uint64_t seed, int sample_index = 0) {
  std::vector<TokenId> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(HashModel{}.next(prompt, seed, sample_index));
    prompt.push_back(out.back());
  }
  return out;
}

class ServingFixture : public ::testing::Test {
 protected:
  static constexpr int kWorld = 2;

  virtual EngineConfig make_config() {
    EngineConfig config;
    config.tensor_parallel_size = kWorld;
    config.max_model_len = 512;
    config.max_num_seqs = 16;
    config.max_num_batched_tokens = 64;
    return config;
  }
  virtual FleetOptions make_fleet_options() {
    FleetOptions options;
    options.build = kBuild;
    options.heartbeat = absl::Milliseconds(50);
    options.lease = absl::Seconds(60);  // tests that want it shorter say so
    return options;
  }
  virtual std::vector<Tenant> make_tenants() { return {}; }
  virtual void add_services(grpc::ServerBuilder&) {}
  virtual void stop_services() {}  // the engine has stopped, the server has not

  void SetUp() override {
    config_ = make_config();
    spec_.vocab = HashModel{}.vocab;
    spec_.max_positions = config_.max_model_len;
    engine_ = std::make_unique<Engine>(config_, spec_, absl::ZeroDuration(), make_tenants());
    FleetEvents events;
    events.on_ready = [this](const GroupReady& ready) { engine_->on_ready(ready); };
    events.on_result = [this](StepResult result) { engine_->on_result(std::move(result)); };
    events.on_lost = [this](EpochId epoch, EndCause cause, const std::string&) {
      engine_->on_lost(epoch, cause);
    };
    FleetOptions options = make_fleet_options();
    options.num_seats = config_.data_parallel_size;
    fleet_ = std::make_unique<Fleet>(config_, kModelHash, events, options);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(fleet_->service());
    add_services(builder);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    address_ = absl::StrCat("127.0.0.1:", port);
    engine_->start(fleet_.get());
  }

  void TearDown() override {
    if (server_ == nullptr) return;
    engine_->stop();
    stop_services();
    fleet_->shutdown(absl::Seconds(10), 0);
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(10));
    server_->Wait();
  }

  template <typename Predicate>
  bool wait_until(Predicate predicate) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (!predicate()) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }
  bool wait_ready() {
    return wait_until([this] { return engine_->stats().ready; });
  }

  std::shared_ptr<Collector> submit(std::vector<TokenId> prompt, int max_tokens, std::uint64_t seed,
                                    int n = 1) {
    auto collector = std::make_shared<Collector>(n);
    Request request;
    request.prompt = std::move(prompt);
    request.params.max_tokens = max_tokens;
    request.params.seed = seed;
    request.n = n;
    request.deliver = [collector](OutputDelta delta) { collector->deliver(delta); };
    const auto id = engine_->submit(std::move(request));
    EXPECT_TRUE(id.ok()) << id.status();
    return collector;
  }

  EngineConfig config_;
  ModelSpec spec_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace quire::test
