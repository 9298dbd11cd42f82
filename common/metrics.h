// Every metric this program exports, in one table (metrics_table.cpp), and the object that holds
// their values. Names and buckets under "vllm:" are vLLM's, so its dashboards work; ours begin with
// "quire_". A row is here only if something fills it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

enum class Metric {
  // gauges
  kRequestsRunning,
  kRequestsWaiting,
  kKvCacheUsage,
  kCacheConfigInfo,
  kReady,
  kGroups,
  kGroupsReady,
  kGroupReady,  // these with label group: the seats, 0, 1, ...
  kGroupRunning,
  kGroupWaiting,
  kGroupKvBlocks,
  kGroupKvBlocksUsed,
  kEpoch,
  kKvBlocks,
  kKvBlocksUsed,
  kKvBlocksCached,
  kKvWasteRatio,
  kPlanUs,
  kStepUs,
  kStepDeadlineSeconds,
  kLastStepAgeSeconds,
  kJournalBytes,
  kJournalLagSeconds,
  kJournalWritable,
  // counters
  kPromptTokens,
  kGenerationTokens,
  kPreemptions,
  kRequestSuccess,  // label finished_reason: stop, length, abort, error
  kSteps,
  kGroupSteps,  // label group
  kGroupLosses,
  kGroupRestarts,  // label cause: rank_gone, rank_silent, worker_error, step_deadline, protocol
  kRequestsRecovered,
  kTokensRecomputed,
  kRequestsQuarantined,
  kNumericsChanges,
  kStaleRepliesDropped,
  kJournalErrors,
  kPrefixCacheQueries,
  kPrefixCacheHits,
  kPromptTokensCached,
  kDrafts,
  kDraftTokens,
  kAcceptedDraftTokens,
  kAdmissionRejections,  // label reason: max_num_queued_reqs, max_num_queued_tokens, deadline,
                         // tenant
  kOffloadSavedBlocks,
  kOffloadLoadedBlocks,
  // histograms
  kTimeToFirstToken,
  kInterTokenLatency,
  kRequestLatency,
  kRequestPromptTokens,
  kRequestGenerationTokens,
  kRequestMaxTokens,
};

enum class MetricKind { kGauge, kCounter, kHistogram };

struct MetricRow {
  Metric id;
  MetricKind kind;
  const char* name;
  const char* help;
  const char* label = nullptr;                 // beside model_name and engine
  absl::Span<const char* const> label_values;  // every value it can take; of "group": the seats
  absl::Span<const double> buckets;            // empty histogram: 1-2-5 up to max_model_len
};
absl::Span<const MetricRow> metric_rows();

// Thread-safe. Using an id as another kind than its row's, or a label value that the row does not
// list, is a CHECK.
class Metrics {
 public:
  // `model_name` is the name clients use; a label of every series.
  Metrics(const std::string& model_name, int max_model_len, int num_groups = 1);
  ~Metrics();

  void set(Metric gauge, double value, absl::string_view label_value = "");
  void add(Metric counter, double amount = 1.0, absl::string_view label_value = "");
  // Brings a counter up to a total kept elsewhere; a smaller total changes nothing.
  void raise_to(Metric counter, double total, absl::string_view label_value = "");
  void observe(Metric histogram, double value);
  // vllm:cache_config_info = 1 with these labels; replaces what was set before.
  void set_cache_config(const std::vector<std::pair<std::string, std::string>>& labels);

  std::string text() const;  // Prometheus text format 0.0.4

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
