// Checks every invariant of the scheduler; see scheduler.h and sequence.h.
#include <set>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/schedule/scheduler.h"

namespace quire {
namespace {

absl::Status broken(const Sequence& sequence, absl::string_view what) {
  return absl::InternalError(absl::StrCat("sequence ", sequence.id, ": ", what));
}

}  // namespace

absl::Status Scheduler::verify() const {
  if (num_in_flight() > config_.steps_in_flight) {
    return absl::InternalError("more steps in flight than allowed");
  }
  QUIRE_RETURN_IF_ERROR(verify_running());
  QUIRE_RETURN_IF_ERROR(verify_in_flight());
  for (const auto& [id, sequence] : waiting_) {
    if (sequence->state != SequenceState::kWaiting) return broken(*sequence, "waits wrongly");
    if (sequence->slot != -1 || sequence->num_computed_tokens != 0 ||
        sequence->tables.num_blocks() != 0) {
      return broken(*sequence, "waits with a slot, blocks or computed tokens");
    }
  }
  if (!running_.empty() && !waiting_.empty() && waiting_.begin()->first <= running_.back()->id) {
    return broken(*running_.back(), "runs, but one that arrived earlier waits");
  }
  return absl::OkStatus();
}

absl::Status Scheduler::verify_running() const {
  std::set<SlotId> slots(free_slots_.begin(), free_slots_.end());
  std::vector<const BlockTables*> tables;
  SequenceId previous = 0;
  for (const Sequence* sequence : running_) {
    if (sequence->state != SequenceState::kRunning) return broken(*sequence, "runs wrongly");
    if (sequence->id <= previous) return broken(*sequence, "is out of order");
    previous = sequence->id;
    if (!slots.insert(sequence->slot).second) return broken(*sequence, "has a slot of another");
    const int computed = sequence->num_computed_tokens;
    if (computed < 1 || computed > sequence->num_known_tokens() ||
        sequence->num_known_tokens() > sequence->max_total_tokens) {
      return broken(*sequence,
                    absl::StrCat("computed ", computed, " of ", sequence->num_known_tokens(),
                                 " known tokens, at most ", sequence->max_total_tokens));
    }
    if (sequence->tables.num_blocks() != kv_.blocks_for(computed)) {
      return broken(*sequence, absl::StrCat("holds ", sequence->tables.num_blocks(), " blocks for ",
                                            computed, " computed tokens"));
    }
    if (sequence != running_.back() && sequence->num_missing_tokens() != 1) {
      return broken(*sequence, "is in the middle of its prompt, but a later one runs");
    }
    tables.push_back(&sequence->tables);
  }
  if (epoch_ != 0 && static_cast<int>(slots.size()) != config_.max_num_seqs) {
    return absl::InternalError(
        absl::StrCat(slots.size(), " slots are accounted for, not ", config_.max_num_seqs));
  }
  return kv_.verify(tables);
}

absl::Status Scheduler::verify_in_flight() const {
  absl::flat_hash_map<const Sequence*, std::pair<int, int>> seen;  // rows, sampling rows
  for (const StepInFlight& step : in_flight_) {
    for (const RowInFlight& row : step.rows) {
      auto& [rows, sampling] = seen[row.sequence];
      rows += 1;
      sampling += row.samples ? 1 : 0;
    }
  }
  std::size_t found = 0;
  for (const auto& [id, sequence] : sequences_) {
    const auto it = seen.find(sequence.get());
    const auto [rows, sampling] = it == seen.end() ? std::pair(0, 0) : it->second;
    found += it == seen.end() ? 0 : 1;
    if (rows != sequence->num_rows_in_flight || sampling != sequence->num_sampled_in_flight) {
      return broken(*sequence, "miscounts its rows in flight");
    }
    if (sequence->state == SequenceState::kFinished && rows == 0) {
      return broken(*sequence, "is kept though it has ended");
    }
  }
  if (found != seen.size()) return absl::InternalError("a row in flight has lost its sequence");
  return absl::OkStatus();
}

}  // namespace quire
