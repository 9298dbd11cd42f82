// How many drafts are worth a try, for one sequence: from how many were right before, and from what
// a step costs. Drafts never change what is generated, only when it comes.
#pragma once

namespace quire {

// Every guess is judged by the token that comes, whether it went as a draft or not: what drafts
// would bring is known before any is made.
class DraftGain {
 public:
  // `right` of `guessed` were; the ones behind the first wrong one were not judged.
  void observe(int guessed, int right);

  // Chance that a guess is right if those before it are. Hopeful at first.
  double acceptance() const;

  // The number of drafts, up to `max_tokens`, with which a step of `running_rows` rows yields the
  // most tokens per microsecond: it lasts `step_us` without them, `us_per_draft_token` longer with
  // each. 0: none pays. While costs are not known (step_us 0): some if few rows run.
  int worthwhile(int max_tokens, int running_rows, double step_us, double us_per_draft_token) const;
  // What `count` drafts bring, less what their time would bring without them: tokens, expected.
  double net_tokens(int count, int running_rows, double step_us, double us_per_draft_token) const;

 private:
  double judged_ = 0.0;  // of late, fading
  double right_ = 0.0;
};

}  // namespace quire
