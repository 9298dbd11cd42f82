// One HTTP request at work in the engine: a Request per prompt, n choices each. The engine's thread
// only appends to an inbox and wakes the connection; text is made on the connection's strand, in
// take().
//
// Invariant: when it is destroyed, nothing it submitted is still running: what is unfinished is
// cancelled, and what the engine still says of it falls into an inbox that nobody empties. Where
// the answer is kept (kept_answer.h) it only stops to listen.
#pragma once

#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/api/choice_text.h"
#include "coordinator/api/event_id.h"
#include "coordinator/api/http.h"
#include "coordinator/api/kept_answer.h"
#include "coordinator/api/service.h"

namespace quire {

class Generation {
 public:
  // `waker` is called from the engine's thread whenever take() has something to return.
  Generation(const Api& api, std::shared_ptr<Waker> waker);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Once, one of the two. All prompts or none: at the first refusal what was already submitted is
  // cancelled. With `kept` its requests deliver there, and this listens.
  absl::Status submit(std::vector<Prepared> prompts, std::shared_ptr<KeptAnswer> kept = nullptr);
  // Listens to what goes on, or is over. `had` (empty, or one per choice) is what the client has.
  void attach(std::vector<Prepared> prompts, std::shared_ptr<KeptAnswer> kept,
              const std::vector<EventId::Choice>& had);

  // What has arrived since the last call, in order. Choices are counted over all prompts:
  // prompt * n + choice of that prompt.
  struct ChoicePiece {
    int choice = 0;
    int num_tokens = 0;  // generated and counted up to and with this piece
    bool had = false;    // the client has it already
    ChoiceText::Piece piece;
  };
  std::vector<ChoicePiece> take();

  void cancel();  // whatever is unfinished
  bool finished() const { return num_open_ == 0; }

  int num_choices() const { return static_cast<int>(choices_.size()); }
  int num_prompt_tokens(int choice) const;  // of the choice's prompt
  int total_prompt_tokens() const;          // each prompt once
  // Of these, what was not computed for this request: known once the prompt has gained a token.
  int num_cached_tokens(int choice) const;
  int total_cached_tokens() const;
  int total_tokens() const;  // generated, all choices

 private:
  struct Arrival;
  struct Inbox;
  struct Prompt {
    RequestId id = 0;
    int num_tokens = 0;
    int num_cached = 0;  // of them
    int max_tokens = 0;
    int num_open = 0;  // choices
  };
  struct Choice {
    int prompt = 0;
    ChoiceText text;
    EventId::Choice had = {};  // what is left of what the client has
    absl::Time last_token = absl::InfinitePast();
  };

  void add_prompt(const Prepared& prepared);
  std::function<void(int, OutputDelta)> into_inbox() const;
  void listen(std::shared_ptr<KeptAnswer> kept);
  void take(Arrival arrival, std::vector<ChoicePiece>& out);
  void push(int index, OutputDelta delta, absl::Time at, bool had, std::vector<ChoicePiece>& out);
  void observe(Choice& choice, const ChoiceText::Piece& piece, absl::Time at);

  const Api api_;
  const absl::Time start_;
  std::shared_ptr<Inbox> inbox_;
  std::vector<Prompt> prompts_;
  std::vector<Choice> choices_;
  std::shared_ptr<KeptAnswer> kept_;  // may be null
  int listener_ = 0;                  // there
  bool is_replay_ = false;            // what comes says nothing of speed
  int num_open_ = 0;                  // choices
};

}  // namespace quire
