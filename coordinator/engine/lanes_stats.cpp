// The numbers of all lanes for /metrics, the queue's gate and logs.
#include <algorithm>

#include "coordinator/engine/lanes.h"

namespace quire {
namespace {

// Of one scheduler, added to those of others.
void sum(const Scheduler& scheduler, EngineStats* stats) {
  stats->running += scheduler.num_running();
  stats->waiting += scheduler.num_waiting();
  stats->waiting_tokens += scheduler.num_waiting_tokens();
  stats->total_blocks += scheduler.num_blocks();
  stats->used_blocks += scheduler.num_used_blocks();
  stats->cached_blocks += scheduler.num_cached_blocks();
  stats->full_step_us = std::max(stats->full_step_us, scheduler.full_step_us());
  const SchedulerCounts& counts = scheduler.counts();
  stats->preemptions += counts.preemptions;
  stats->prefix_queries += counts.prefix_queries;
  stats->prefix_hits += counts.prefix_hits;
  stats->offload_saved_blocks += counts.saved_blocks;
  stats->offload_loaded_blocks += counts.loaded_blocks;
  stats->drafts += counts.drafts;
  stats->draft_tokens += counts.draft_tokens;
  stats->accepted_draft_tokens += counts.accepted_draft_tokens;
}

}  // namespace

void Lanes::publish(EngineStats* stats) const {
  stats->running = stats->waiting = stats->free_slots = 0;
  stats->total_blocks = stats->used_blocks = stats->cached_blocks = 0;
  stats->waiting_tokens = 0;
  stats->full_step_us = 0;
  stats->preemptions = stats->prefix_queries = stats->prefix_hits = 0;
  stats->offload_saved_blocks = stats->offload_loaded_blocks = 0;
  stats->drafts = stats->draft_tokens = stats->accepted_draft_tokens = 0;
  stats->epoch = 0;
  stats->answer_due = absl::InfiniteFuture();
  if (lobby_ != nullptr) sum(*lobby_, stats);
  for (int i = 0; i < size(); ++i) {
    const Lane& lane = at(i);
    const Scheduler& scheduler = lane.scheduler();
    sum(scheduler, stats);
    if (lane.ready()) stats->free_slots += config_.max_num_seqs - scheduler.num_running();
    stats->epoch = std::max(stats->epoch, lane.epoch());
    stats->answer_due = std::min(stats->answer_due, lane.answer_due());
    stats->groups[static_cast<std::size_t>(i)] = {.epoch = lane.epoch(),
                                                  .running = scheduler.num_running(),
                                                  .waiting = scheduler.num_waiting(),
                                                  .total_blocks = scheduler.num_blocks(),
                                                  .used_blocks = scheduler.num_used_blocks(),
                                                  .steps = lane.steps()};
  }
  stats->num_ready = num_ready();
  stats->ready = stats->num_ready > 0;
}

double Lanes::kv_waste() const {
  KvUse all;
  for (const auto& lane : lanes_) {
    const KvUse use = lane->scheduler().kv_use();
    all.allocated += use.allocated;
    all.filled += use.filled;
  }
  const auto allocated = static_cast<double>(std::max<std::int64_t>(1, all.allocated));
  return static_cast<double>(all.allocated - all.filled) / allocated;
}

}  // namespace quire
