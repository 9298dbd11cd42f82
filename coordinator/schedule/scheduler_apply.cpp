// Applies the result of the oldest plan in flight, and checks that workers keep to the plan.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {
namespace {

bool contains(const std::vector<TokenId>& list, TokenId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

}  // namespace

absl::StatusOr<std::vector<Gain>> Scheduler::apply(StepResult result) {
  QUIRE_RETURN_IF_ERROR(check(result));
  const StepInFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  std::vector<Gain> gains;
  gains.reserve(result.rows.size());
  std::size_t sampled = 0;
  for (const RowInFlight& row : step.rows) {
    Sequence& sequence = *row.sequence;
    sequence.num_rows_in_flight -= 1;
    if (row.samples) {
      RowResult& got = result.rows[sampled++];
      sequence.num_sampled_in_flight -= 1;
      if (sequence.state != SequenceState::kFinished) {
        sequence.tokens.push_back(got.token);
        const EndReason end = end_of(sequence);
        gains.push_back({sequence.id, sequence.request, sequence.choice, got.token,
                         std::move(got.logprobs), end});
        if (sequence.params.logprobs < 0) gains.back().logprobs.clear();
        if (end != EndReason::kNone) {
          finish(&sequence);
          continue;
        }
      }
    }
    forget_if_done(&sequence);
  }
  return gains;
}

EndReason Scheduler::end_of(const Sequence& sequence) const {
  const TokenId last = sequence.tokens.back();
  if (!sequence.params.ignore_eos && contains(config_.eos, last)) return EndReason::kStop;
  if (contains(sequence.params.stop_token_ids, last)) return EndReason::kStop;
  return sequence.num_tokens() >= sequence.max_total_tokens ? EndReason::kLength : EndReason::kNone;
}

absl::Status Scheduler::check(const StepResult& result) const {
  if (result.epoch != epoch_ || in_flight_.empty() || result.step != oldest_step()) {
    return absl::InternalError(absl::StrCat("The workers answered step ", result.step, " of epoch ",
                                            result.epoch, ", but step ", oldest_step(),
                                            " of epoch ", epoch_, " was due."));
  }
  std::size_t next = 0;
  const auto& rows = in_flight_.front().rows;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].samples) continue;
    if (next == result.rows.size() || result.rows[next].row != static_cast<int>(i)) {
      return absl::InternalError(absl::StrCat(
          "The workers' result of step ", result.step, " lacks row ", i, ", which samples",
          next == result.rows.size()
              ? ""
              : absl::StrCat("; row ", result.rows[next].row, " is in its place"),
          "."));
    }
    QUIRE_RETURN_IF_ERROR(check_row(result.rows[next++], rows[i].sequence->params));
  }
  if (next != result.rows.size()) {
    return absl::InternalError(absl::StrCat("The workers' result of step ", result.step,
                                            " has row ", result.rows[next].row,
                                            ", which does not sample in that plan."));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::check_row(const RowResult& row, const SamplingParams& params) const {
  if (row.token < 0 || row.token >= config_.vocab) {
    return absl::InternalError(absl::StrCat("The workers sampled token ", row.token,
                                            ", but the vocabulary has ", config_.vocab, "."));
  }
  if (params.logprobs >= 0 && (row.logprobs.empty() || row.logprobs[0].token != row.token)) {
    return absl::InternalError(absl::StrCat("The workers sampled token ", row.token,
                                            " without its logprob, which was asked for."));
  }
  return absl::OkStatus();
}

}  // namespace quire
