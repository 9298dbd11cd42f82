// A journal in a folder of its own, requests for it, and what they deliver.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "coordinator/journal/journal.h"

namespace quire::test {

class JournalTest : public testing::Test {
 protected:
  JournalTest() {
    std::string folder = (std::filesystem::temp_directory_path() / "quire-journal-XXXXXX").string();
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    options_.path = folder + "/journal.sqlite";
    options_.model_hash = 77;
  }
  ~JournalTest() override {
    journal_.reset();
    std::filesystem::remove_all(folder_);
  }

  void open() {
    journal_.reset();
    absl::StatusOr<std::unique_ptr<Journal>> opened = Journal::open(options_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    journal_ = *std::move(opened);
    saved_ = journal_->take_saved();
  }

  // As after kill -9: what the file says now is all that is left.
  void crash() {
    const std::string left = (folder_ / ("life-" + std::to_string(++lives_))).string();
    for (const char* suffix : {"", "-wal"}) {
      if (std::filesystem::exists(options_.path + suffix)) {
        std::filesystem::copy_file(options_.path + suffix, left + suffix);
      }
    }
    options_.path = left;
    open();
  }

  static std::shared_ptr<AnswerRecord> record(const std::string& name, int num_prompts = 1) {
    auto made = std::make_shared<AnswerRecord>();
    made->name = name;
    made->endpoint = "/v1/completions";
    made->body = "{\"prompt\":\"" + name + "\"}";
    made->created = 1234;
    made->num_prompts = num_prompts;
    return made;
  }
  static Request request(RequestId id, std::shared_ptr<const AnswerRecord> answer, int n = 1,
                         int place = 0) {
    Request made;
    made.id = id;
    made.prompt = {1, 2, static_cast<TokenId>(id)};
    made.params.seed = 42 + id;
    made.params.max_tokens = 50;
    made.n = n;
    made.answer = std::move(answer);
    made.place = place;
    made.arrival = absl::FromUnixMicros(1'700'000'000'000'000);
    return made;
  }
  static OutputDelta delta(RequestId id, int choice, std::vector<TokenId> tokens,
                           FinishReason finish = FinishReason::kNone) {
    OutputDelta made;
    made.request = id;
    made.choice = choice;
    made.tokens = std::move(tokens);
    made.finish = finish;
    return made;
  }

  // Leaves deltas with the journal and waits until all were delivered.
  void release(std::vector<OutputDelta> deltas, bool is_written = true) {
    const std::size_t expected = num_delivered() + deltas.size();
    std::vector<Delivery> deliveries;
    for (OutputDelta& each : deltas) deliveries.push_back({outlet_, std::move(each), is_written});
    journal_->release(std::move(deliveries));
    const absl::Time patience = absl::Now() + absl::Seconds(30);
    while (num_delivered() < expected && absl::Now() < patience) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    ASSERT_EQ(num_delivered(), expected);
  }
  std::size_t num_delivered() {
    std::lock_guard lock(mutex_);
    return delivered_.size();
  }
  const SavedRequest* saved(RequestId id) const {
    for (const SavedAnswer& answer : saved_) {
      for (const SavedRequest& each : answer.requests) {
        if (each.request.id == id) return &each;
      }
    }
    return nullptr;
  }

  std::filesystem::path folder_;
  int lives_ = 0;
  JournalOptions options_;
  std::unique_ptr<Journal> journal_;
  std::vector<SavedAnswer> saved_;
  std::mutex mutex_;  // guards delivered_
  std::vector<OutputDelta> delivered_;
  std::shared_ptr<const DeliverFn> outlet_ =
      std::make_shared<const DeliverFn>([this](OutputDelta delta) {
        std::lock_guard lock(mutex_);
        delivered_.push_back(std::move(delta));
      });
};

}  // namespace quire::test
