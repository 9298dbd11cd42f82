// The reader of one simulated request: knows from the hash model alone what it must get, and says
// what is wrong with what it gets. The oracle of beams is BeamSearch over the model's best tokens.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "coordinator/schedule/scheduler.h"
#include "tests/fakes/hash_model.h"

namespace quire::test {

class SimulationClient {
 public:
  SimulationClient(const HashModel& model, const SchedulerConfig& config, NewRequest wish);

  const NewRequest& wish() const { return wish_; }
  int num_prompt_tokens() const { return static_cast<int>(wish_.prompt.size()); }
  int max_total_tokens() const { return max_total_; }  // of one choice
  bool is_beam() const { return wish_.beams.width > 0; }
  bool done() const { return num_open_ == 0; }
  bool is_open(int choice) const { return choices_[static_cast<std::size_t>(choice)].open; }
  // Prompt and output so far.
  const std::vector<TokenId>& tokens(int choice) const {
    return choices_[static_cast<std::size_t>(choice)].tokens;
  }
  std::int64_t num_tokens() const { return num_tokens_; }  // delivered
  bool gained() const { return gained_; }

  // `most_cached`: of the prompt's tokens, those that anything earlier may have left behind.
  absl::Status take(const Gain& gain, int most_cached);
  void stop(int choice);  // the reader has seen enough of it

  // All that finish_early() gave; a search was `steps` tokens far then.
  absl::Status take_early(const std::vector<Gain>& gains, int steps, int most_cached);

 private:
  struct Choice {
    std::vector<TokenId> tokens;
    bool open = true;
  };

  absl::Status take_sampled(const Gain& gain, Choice* choice);
  absl::Status take_beam(const Gain& gain, const std::vector<BeamSearch::Hypothesis>& right,
                         Choice* choice);
  absl::Status check_logprobs(const Gain& gain, std::size_t i, int position) const;
  EndReason expected_end(const std::vector<TokenId>& tokens) const;
  std::vector<TokenId> stops() const;
  // The best when the search ends by itself, or is ended after so many steps.
  std::vector<BeamSearch::Hypothesis> search(int max_steps) const;

  HashModel model_;
  std::vector<TokenId> eos_;
  NewRequest wish_;
  int max_total_ = 0;
  std::vector<Choice> choices_;
  int num_open_ = 0;
  std::int64_t num_tokens_ = 0;
  bool gained_ = false;
  bool early_ = false;
  std::vector<BeamSearch::Hypothesis> found_;  // once it was needed
};

}  // namespace quire::test
