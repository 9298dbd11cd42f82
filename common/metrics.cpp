// Series are created with the object, so every name is in the first scrape; afterwards a value is a
// look-up by index and an atomic.
#include "common/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <mutex>

#include "common/check.h"

namespace quire {
namespace {

prometheus::Histogram::BucketBoundaries buckets_of(const MetricRow& row, int max_model_len) {
  if (!row.buckets.empty()) return {row.buckets.begin(), row.buckets.end()};
  prometheus::Histogram::BucketBoundaries bounds;
  for (double decade = 1.0;; decade *= 10.0) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor * decade > max_model_len && !bounds.empty()) return bounds;
      bounds.push_back(factor * decade);
    }
  }
}

// The metrics of one row: one, or one for each label value.
struct Series {
  const MetricRow* row = nullptr;
  std::vector<std::string> label_values;  // {""}: it has no label
  std::vector<prometheus::Gauge*> gauges;
  std::vector<prometheus::Counter*> counters;
  prometheus::Histogram* histogram = nullptr;
};

}  // namespace

struct Metrics::Impl {
  prometheus::Registry registry;
  prometheus::Labels labels;
  std::vector<Series> series;  // by Metric
  std::mutex mutex;            // guards cache_config, and totals being raised
  prometheus::Family<prometheus::Gauge>* cache_config_family = nullptr;
  prometheus::Gauge* cache_config = nullptr;

  void create(const MetricRow& row, int max_model_len, int num_groups);
  Series& at(Metric id, MetricKind kind) {
    Series& found = series[static_cast<std::size_t>(id)];
    QUIRE_CHECK(found.row->kind == kind);
    return found;
  }
  static std::size_t index(const Series& found, absl::string_view label_value) {
    const auto& values = found.label_values;
    const auto value = std::find(values.begin(), values.end(), label_value);
    QUIRE_CHECK(value != values.end());
    return static_cast<std::size_t>(value - values.begin());
  }
  prometheus::Counter& counter(Metric id, absl::string_view label_value) {
    Series& found = at(id, MetricKind::kCounter);
    return *found.counters[index(found, label_value)];
  }
};

void Metrics::Impl::create(const MetricRow& row, int max_model_len, int num_groups) {
  Series& made = series[static_cast<std::size_t>(row.id)];
  QUIRE_CHECK(made.row == nullptr);  // one row for each id
  made.row = &row;
  made.label_values.assign(row.label_values.begin(), row.label_values.end());
  if (row.label != nullptr && made.label_values.empty()) {
    for (int group = 0; group < num_groups; ++group) {
      made.label_values.push_back(std::to_string(group));
    }
  }
  std::vector<prometheus::Labels> each;
  for (const std::string& value : made.label_values) each.push_back({{row.label, value}});
  if (each.empty()) {
    each.emplace_back();
    made.label_values = {""};
  }
  if (row.kind == MetricKind::kGauge) {
    auto& family =
        prometheus::BuildGauge().Name(row.name).Help(row.help).Labels(labels).Register(registry);
    if (row.id == Metric::kCacheConfigInfo) {
      cache_config_family = &family;  // its labels come later
      return;
    }
    for (const auto& own : each) made.gauges.push_back(&family.Add(own));
  } else if (row.kind == MetricKind::kCounter) {
    auto& family =
        prometheus::BuildCounter().Name(row.name).Help(row.help).Labels(labels).Register(registry);
    for (const auto& own : each) made.counters.push_back(&family.Add(own));
  } else {
    auto& family =
        prometheus::BuildHistogram().Name(row.name).Help(row.help).Labels(labels).Register(
            registry);
    made.histogram = &family.Add({}, buckets_of(row, max_model_len));
  }
}

Metrics::Metrics(const std::string& model_name, int max_model_len, int num_groups)
    : impl_(std::make_unique<Impl>()) {
  impl_->labels = {{"model_name", model_name}, {"engine", "0"}};
  impl_->series.resize(metric_rows().size());
  for (const MetricRow& row : metric_rows()) impl_->create(row, max_model_len, num_groups);
}

Metrics::~Metrics() = default;

void Metrics::set(Metric gauge, double value, absl::string_view label_value) {
  Series& series = impl_->at(gauge, MetricKind::kGauge);
  QUIRE_CHECK(!series.gauges.empty());
  series.gauges[Impl::index(series, label_value)]->Set(value);
}

void Metrics::add(Metric counter, double amount, absl::string_view label_value) {
  QUIRE_CHECK_GE(amount, 0.0);
  impl_->counter(counter, label_value).Increment(amount);
}

void Metrics::raise_to(Metric counter, double total, absl::string_view label_value) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  prometheus::Counter& value = impl_->counter(counter, label_value);
  if (total > value.Value()) value.Increment(total - value.Value());
}

void Metrics::observe(Metric histogram, double value) {
  impl_->at(histogram, MetricKind::kHistogram).histogram->Observe(value);
}

void Metrics::set_cache_config(const std::vector<std::pair<std::string, std::string>>& labels) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  if (impl_->cache_config != nullptr) impl_->cache_config_family->Remove(impl_->cache_config);
  impl_->cache_config = &impl_->cache_config_family->Add({labels.begin(), labels.end()});
  impl_->cache_config->Set(1.0);
}

std::string Metrics::text() const {
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace quire
