// A rank of the tiny model, and what a scripted coordinator sends it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"
#include "tests/fakes/collective_device.h"
#include "tests/worker/session/fake_coordinator.h"
#include "tests/worker/tiny_model.h"
#include "worker/session/session.h"

namespace quire::test {

inline constexpr EpochId kEpoch = 7;

inline StepPlan first_plan() {
  StepPlan plan;
  plan.epoch = kEpoch;
  plan.step = 1;
  AdmitRow admit;
  admit.tokens = {1, 2, 3};
  admit.num_prompt_tokens = 3;
  admit.params.temperature = 0.0f;
  plan.admits = {admit};
  plan.rows = {{.slot = 0, .num_tokens = 3, .samples = true, .new_blocks = {{0}}}};
  return plan;
}

inline StepPlan next_plan(StepId step, int position) {
  StepPlan plan;
  plan.epoch = kEpoch;
  plan.step = step;
  plan.rows = {{.slot = 0, .first_position = position, .num_tokens = 1, .samples = true}};
  return plan;
}

class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    spdlog::default_logger();  // made here: ThreadSanitizer does not see the lock under which it is
    write_tiny_gguf(scratch_ / "tiny.gguf", {});
  }

  std::unique_ptr<Rank> load(int rank = 0, int world = 1, bool over_collective = false) {
    auto file = open_model(scratch_ / "tiny.gguf");
    EXPECT_TRUE(file.ok()) << file.status();
    DeviceOptions options;
    options.kind = "cpu";
    options.num_threads = 1;
    std::unique_ptr<Device> device = *open_device(options);
    if (over_collective) device = with_collective(std::move(device), among_threads());
    auto loaded = Rank::load(*std::move(file), std::move(device), {rank, world, 0, world},
                             make_progress("none", ""));
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return *std::move(loaded);
  }
  SessionOptions options(const std::string& coordinator) {
    static std::atomic<int> counter{0};
    SessionOptions options;
    options.coordinator.host_port = coordinator;
    options.instance_id = absl::StrCat("test-", ::getpid(), "-", counter++);
    options.secret = "pst";
    options.kv_cache_memory_bytes = 8 << 20;
    options.max_num_seqs = 4;
    options.max_model_len = 256;
    options.patience = absl::Seconds(5);
    return options;
  }
  absl::Status run(Script script) {
    FakeCoordinator coordinator(std::move(script));
    const auto rank = load();
    return run_session(*rank, options(coordinator.address()));
  }

  ScratchFolder scratch_;
};

}  // namespace quire::test
