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
  QUIRE_RETURN_IF_ERROR(verify_requests());
  for (const Sequence* sequence : waiting_.all()) {
    if (sequence->state != SequenceState::kWaiting) return broken(*sequence, "waits wrongly");
    if (sequence->slot != -1 || sequence->num_computed_tokens != 0 ||
        sequence->table.num_blocks() != 0) {
      return broken(*sequence, "waits with a slot, blocks or computed tokens");
    }
  }
  return absl::OkStatus();
}

absl::Status Scheduler::verify_running() const {
  std::set<SlotId> slots(free_slots_.begin(), free_slots_.end());
  std::vector<const BlockTable*> tables;
  const Sequence* previous = nullptr;
  for (const Sequence* sequence : running_) {
    if (sequence->state != SequenceState::kRunning) return broken(*sequence, "runs wrongly");
    if (previous != nullptr && !Earlier()(previous, sequence)) {
      return broken(*sequence, "is out of order");
    }
    previous = sequence;
    if (sequence->granted) return broken(*sequence, "is granted something outside a plan");
    if (!slots.insert(sequence->slot).second) return broken(*sequence, "has a slot of another");
    const int computed = sequence->num_computed_tokens;
    const int most = sequence->num_known_tokens() + static_cast<int>(sequence->drafts.size());
    if (computed < 1 || computed > most || most > sequence->max_total_tokens ||
        sequence->num_applied_tokens > computed) {
      return broken(*sequence, absl::StrCat("computed ", computed, ", ",
                                            sequence->num_applied_tokens, " of them applied, of ",
                                            most, " tokens, at most ", sequence->max_total_tokens));
    }
    const BlockTable& table = sequence->table;
    if (table.num_blocks() < kv_.blocks_for(computed) || table.num_right > table.num_sent ||
        table.num_offered * config_.block_size > computed) {
      return broken(*sequence,
                    absl::StrCat("holds ", table.num_blocks(), " blocks, ", table.num_offered,
                                 " of them offered, for ", computed, " computed tokens"));
    }
    tables.push_back(&table);
  }
  if (epoch_ != 0 && static_cast<int>(slots.size()) != config_.max_num_seqs) {
    return absl::InternalError(
        absl::StrCat(slots.size(), " slots are accounted for, not ", config_.max_num_seqs));
  }
  return kv_.verify(tables);
}

absl::Status Scheduler::verify_in_flight() const {
  absl::flat_hash_map<const Sequence*, std::pair<int, int>> seen;  // rows, tokens to come
  for (const StepInFlight& step : in_flight_) {
    for (const RowInFlight& row : step.rows) {
      const auto found = sequences_.find(row.id);
      if (found == sequences_.end() || found->second.get() != row.sequence) {
        return absl::InternalError("a row in flight has lost its sequence");
      }
      auto& [rows, tokens] = seen[row.sequence];
      rows += 1;
      tokens += row.num_picks == 1 && !row.sequence->is_beam ? 1 : 0;
    }
  }
  for (const auto& [id, sequence] : sequences_) {
    const auto it = seen.find(sequence.get());
    const auto [rows, tokens] = it == seen.end() ? std::pair(0, 0) : it->second;
    if (rows != sequence->num_rows_in_flight || tokens != sequence->num_sampled_in_flight) {
      return broken(*sequence, "miscounts its rows in flight");
    }
    if (sequence->state == SequenceState::kFinished && rows == 0) {
      return broken(*sequence, "is kept though it has ended");
    }
  }
  return absl::OkStatus();
}

// Every sequence that has not ended is an open choice or beam of a request, and the other way
// round.
absl::Status Scheduler::verify_requests() const {
  std::size_t open = 0;
  int reserved = 0;
  for (const auto& [id, request] : requests_) {
    reserved += request->reserved_slots;
    const auto count = [&](const std::vector<Sequence*>& sequences) {
      for (const Sequence* sequence : sequences) open += sequence == nullptr ? 0 : 1;
    };
    count(request->choices);
    count(request->open);
    for (const Sequence* sequence : request->held) {
      if (sequence->state != SequenceState::kHeld) return broken(*sequence, "is held wrongly");
    }
  }
  std::size_t alive = 0;
  for (const auto& [id, sequence] : sequences_) {
    alive += sequence->state == SequenceState::kFinished ? 0 : 1;
  }
  if (open != alive) {
    return absl::InternalError(
        absl::StrCat(alive, " sequences live, but requests have ", open, " of them"));
  }
  if (reserved != reserved_slots_) {
    return absl::InternalError(
        absl::StrCat(reserved_slots_, " slots are reserved, but requests need ", reserved));
  }
  return absl::OkStatus();
}

}  // namespace quire
