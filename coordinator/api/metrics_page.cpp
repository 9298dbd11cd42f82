// GET /metrics: the engine's numbers are copied in at scrape time, requests are observed as they
// go.
#include <string>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "coordinator/api/api_error.h"
#include "coordinator/api/endpoints.h"
#include "coordinator/api/request_metrics.h"

namespace quire {

namespace {

double ratio(int part, int whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

double last_step_age_s(const EngineStats& stats) {
  if (stats.unfinished == 0 || stats.last_step == absl::InfinitePast()) return 0;
  return absl::ToDoubleSeconds(steady_now() - stats.last_step);
}

void copy_gauges(Metrics& metrics, const EngineStats& stats) {
  metrics.set(Metric::kRequestsRunning, stats.running);
  metrics.set(Metric::kRequestsWaiting, stats.waiting);
  metrics.set(Metric::kKvCacheUsage, ratio(stats.used_blocks, stats.total_blocks));
  metrics.set(Metric::kReady, stats.ready ? 1.0 : 0.0);
  metrics.set(Metric::kGroups, stats.num_groups);
  metrics.set(Metric::kGroupsReady, stats.num_ready);
  metrics.set(Metric::kEpoch, static_cast<double>(stats.epoch));
  metrics.set(Metric::kKvBlocks, stats.total_blocks);
  metrics.set(Metric::kKvBlocksUsed, stats.used_blocks);
  metrics.set(Metric::kKvBlocksCached, stats.cached_blocks);
  metrics.set(Metric::kKvWasteRatio, stats.kv_waste);
  metrics.set(Metric::kPlanUs, stats.plan_us);
  metrics.set(Metric::kStepUs, stats.step_us);
  metrics.set(Metric::kStepDeadlineSeconds, stats.step_deadline_s);
  metrics.set(Metric::kLastStepAgeSeconds, last_step_age_s(stats));
  metrics.set(Metric::kJournalBytes, static_cast<double>(stats.journal.bytes));
  metrics.set(Metric::kJournalLagSeconds, stats.journal.lag_s);
  metrics.set(Metric::kJournalWritable, stats.journal.writable ? 1.0 : 0.0);
}

void copy_groups(Metrics& metrics, const EngineStats& stats) {
  for (std::size_t seat = 0; seat < stats.groups.size(); ++seat) {
    const GroupStats& group = stats.groups[seat];
    const std::string label = absl::StrCat(seat);
    metrics.set(Metric::kGroupReady, group.epoch != 0 ? 1.0 : 0.0, label);
    metrics.set(Metric::kGroupRunning, group.running, label);
    metrics.set(Metric::kGroupWaiting, group.waiting, label);
    metrics.set(Metric::kGroupKvBlocks, group.total_blocks, label);
    metrics.set(Metric::kGroupKvBlocksUsed, group.used_blocks, label);
    metrics.raise_to(Metric::kGroupSteps, static_cast<double>(group.steps), label);
  }
}

void copy_counters(Metrics& metrics, const EngineStats& stats) {
  const auto raise = [&](Metric counter, std::uint64_t total, absl::string_view label = "") {
    metrics.raise_to(counter, static_cast<double>(total), label);
  };
  raise(Metric::kPromptTokens, stats.prompt_tokens);
  raise(Metric::kGenerationTokens, stats.generation_tokens);
  raise(Metric::kPreemptions, stats.preemptions);
  raise(Metric::kRequestSuccess, stats.finished_stop, "stop");
  raise(Metric::kRequestSuccess, stats.finished_length, "length");
  raise(Metric::kRequestSuccess, stats.finished_abort, "abort");
  raise(Metric::kRequestSuccess, stats.finished_error, "error");
  raise(Metric::kSteps, stats.steps);
  raise(Metric::kGroupLosses, stats.group_losses);
  for (int i = 0; i < kNumEndCauses; ++i) {
    raise(Metric::kGroupRestarts, stats.group_ends[static_cast<std::size_t>(i)],
          name_of(static_cast<EndCause>(i)));
  }
  raise(Metric::kRequestsRecovered, stats.requests_recovered);
  raise(Metric::kTokensRecomputed, stats.tokens_recomputed);
  raise(Metric::kRequestsQuarantined, stats.requests_quarantined);
  raise(Metric::kNumericsChanges, stats.numerics_changes);
  raise(Metric::kStaleRepliesDropped, stats.stale_replies_dropped);
  raise(Metric::kJournalErrors, stats.journal.errors);
  raise(Metric::kPrefixCacheQueries, stats.prefix_queries);
  raise(Metric::kPrefixCacheHits, stats.prefix_hits);
  raise(Metric::kPromptTokensCached, stats.prefix_hits);
  raise(Metric::kDrafts, stats.drafts);
  raise(Metric::kDraftTokens, stats.draft_tokens);
  raise(Metric::kAcceptedDraftTokens, stats.accepted_draft_tokens);
  raise(Metric::kAdmissionRejections, stats.rejected_queued_reqs, "max_num_queued_reqs");
  raise(Metric::kAdmissionRejections, stats.rejected_queued_tokens, "max_num_queued_tokens");
  raise(Metric::kAdmissionRejections, stats.rejected_deadline, "deadline");
  raise(Metric::kAdmissionRejections, stats.rejected_tenant, "tenant");
  raise(Metric::kOffloadSavedBlocks, stats.offload_saved_blocks);
  raise(Metric::kOffloadLoadedBlocks, stats.offload_loaded_blocks);
}

}  // namespace

void handle_metrics(const Api& api, Exchange& exchange) {
  if (api.metrics == nullptr) {
    return exchange.respond(error_response(
        {.status = 404, .message = "This server keeps no metrics.", .code = "not_found"}));
  }
  const EngineStats stats = api.engine->stats();
  copy_gauges(*api.metrics, stats);
  copy_counters(*api.metrics, stats);
  copy_groups(*api.metrics, stats);
  api.metrics->set_cache_config({{"block_size", absl::StrCat(api.config->block_size)},
                                 {"num_gpu_blocks", absl::StrCat(stats.total_blocks)}});
  exchange.respond(
      {.body = api.metrics->text(), .content_type = "text/plain; version=0.0.4; charset=utf-8"});
}

void observe_token(Metrics& metrics, bool first, absl::Duration since) {
  metrics.observe(first ? Metric::kTimeToFirstToken : Metric::kInterTokenLatency,
                  absl::ToDoubleSeconds(since));
}

void observe_finish(Metrics& metrics, const FinishedChoice& choice) {
  metrics.observe(Metric::kRequestLatency, absl::ToDoubleSeconds(choice.latency));
  metrics.observe(Metric::kRequestPromptTokens, choice.prompt_tokens);
  metrics.observe(Metric::kRequestGenerationTokens, choice.generation_tokens);
  metrics.observe(Metric::kRequestMaxTokens, choice.max_tokens);
}

}  // namespace quire
