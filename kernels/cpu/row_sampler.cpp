// Filters narrow the row to a few candidates by vector passes over thresholds below the largest
// logit; only those are sorted. The thresholds change how many candidates are looked at, never
// which of them remain.
#include "kernels/cpu/row_sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "common/check.h"

namespace quire::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kWidestLogits = 256.0f;  // below the best: from here on everything is gathered

// Indices of candidates by (logit descending, id ascending); ids rise with the index.
std::vector<int> ranked(const Candidates& c) {
  std::vector<int> order(c.logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&c](int a, int b) {
    const float xa = c.logits[static_cast<std::size_t>(a)];
    const float xb = c.logits[static_cast<std::size_t>(b)];
    return xa != xb ? xa > xb : a < b;
  });
  return order;
}

// Removes candidates below `lowest`.
void keep_from(Candidates& c, float lowest) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < c.ids.size(); ++i) {
    if (c.logits[i] < lowest) continue;
    c.logits[kept] = c.logits[i];
    c.ids[kept++] = c.ids[i];
  }
  c.logits.resize(kept);
  c.ids.resize(kept);
}

float kth_largest(std::vector<float> values, int k) {
  const auto nth = values.begin() + (k - 1);
  std::nth_element(values.begin(), nth, values.end(), std::greater<>());
  return *nth;
}

// Zeroes the weights outside the smallest set that reaches `wanted`, largest logits first. Halves
// the part that holds the boundary until little is left to sort.
void keep_mass(const Candidates& c, double wanted, std::vector<float>& weights) {
  constexpr std::ptrdiff_t kSorted = 64;
  struct Entry {
    float logit;
    float weight;
    int index;
  };
  std::vector<Entry> entries(weights.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    entries[i] = {c.logits[i], weights[i], static_cast<int>(i)};
  }
  const auto before = [](const Entry& a, const Entry& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.index < b.index;
  };
  double mass = 0.0;  // of what lies before `begin`, which stays
  auto begin = entries.begin(), end = entries.end();
  while (end - begin > kSorted) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, before);
    double first_half = 0.0;
    for (auto i = begin; i < middle; ++i) first_half += i->weight;
    if (mass + first_half >= wanted) {
      for (auto i = middle; i < end; ++i) weights[static_cast<std::size_t>(i->index)] = 0.0f;
      end = middle;
    } else {
      mass += first_half;
      begin = middle;
    }
  }
  std::sort(begin, end, before);
  for (auto i = begin; i < end; ++i) {
    const bool reached = i != entries.begin() && mass >= wanted;
    mass += i->weight;
    if (reached) weights[static_cast<std::size_t>(i->index)] = 0.0f;
  }
}

// The index whose share of [0, 1) in order holds `uniform`.
std::size_t pick(const std::vector<float>& weights, double target) {
  double below = 0.0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0.0f) continue;
    last = i;
    below += weights[i];
    if (below > target) break;
  }
  return last;
}

}  // namespace

RowSampler::RowSampler(const VectorOps& ops, std::vector<LogitRun> runs)
    : ops_(ops), runs_(std::move(runs)) {
  QUIRE_CHECK(!runs_.empty());
  best_ = runs_.front().first_id;
  const LogitRun* best_run = nullptr;
  for (const LogitRun& run : runs_) {
    run_highest_.push_back(ops_.largest(run.x, run.size));
    num_ids_ += run.size;
    is_nan_ = is_nan_ || std::isnan(run_highest_.back());
    if (run_highest_.back() > highest_) {
      highest_ = run_highest_.back();
      best_run = &run;
    }
  }
  if (best_run != nullptr) {
    best_ = best_run->first_id + ops_.find(best_run->x, best_run->size, highest_);
  }
}

TokenId RowSampler::draw(const SampleRow& row) const {
  if (!has_number()) return best_;  // nothing to weigh
  const double uniform =
      philox_uniform(row.seed, row.sample_index, row.position, DrawPurpose::kSample);
  const bool filtered =
      (row.top_k > 0 && row.top_k < num_ids_) || row.top_p < 1.0f || row.min_p > 0.0f;
  return filtered ? draw_filtered(row, uniform) : draw_from_all(row, uniform);
}

TokenId RowSampler::draw_from_all(const SampleRow& row, double uniform) const {
  const float inverse = 1.0f / row.temperature;
  std::vector<float> sums(runs_.size());
  double total = 0.0;
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    sums[i] = ops_.sum_weights(runs_[i].x, runs_[i].size, highest_, inverse, kMinusInfinity);
    total += sums[i];
  }
  const double target = uniform * total;
  double below = 0.0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    if (sums[i] == 0.0f) continue;
    at = i;
    if (below + sums[i] > target) break;
    below += sums[i];
  }
  std::vector<float> weights(static_cast<std::size_t>(runs_[at].size));
  ops_.weights(runs_[at].x, runs_[at].size, highest_, inverse, weights.data());
  return runs_[at].first_id + static_cast<TokenId>(pick(weights, target - below));
}

TokenId RowSampler::draw_filtered(const SampleRow& row, double uniform) const {
  const float lowest =
      row.min_p > 0.0f ? highest_ + row.temperature * std::log(row.min_p) : kMinusInfinity;
  Candidates c;
  double total = 0.0;  // the mass that top_p is a share of
  if (row.top_k > 0 && row.top_k < num_ids_) {
    c = gather_largest(row.top_k);
    keep_from(c, std::max(kth_largest(c.logits, row.top_k), lowest));
  } else if (row.top_p < 1.0f) {
    c = gather_mass(row.top_p, row.temperature, lowest, total);
  } else {
    c = gather(lowest);
  }
  std::vector<float> weights(c.ids.size());
  ops_.weights(c.logits.data(), static_cast<int>(c.logits.size()), highest_, 1.0f / row.temperature,
               weights.data());
  if (row.top_p < 1.0f) {
    if (total == 0.0) total = std::accumulate(weights.begin(), weights.end(), 0.0);
    keep_mass(c, row.top_p * total, weights);
  }
  const double kept = std::accumulate(weights.begin(), weights.end(), 0.0);
  return c.ids[pick(weights, uniform * kept)];
}

std::vector<TokenLogprob> RowSampler::logprobs(TokenId token, int k) const {
  // Per run a maximum and a sum, merged in order under the exact maximum of all.
  std::vector<float> factors(runs_.size());
  ops_.weights(run_highest_.data(), static_cast<int>(runs_.size()), highest_, 1.0f, factors.data());
  double sum = 0.0;
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    if (factors[i] == 0.0f) continue;
    sum += static_cast<double>(factors[i]) *
           ops_.sum_weights(runs_[i].x, runs_[i].size, run_highest_[i], 1.0f, kMinusInfinity);
  }
  const double log_sum = static_cast<double>(highest_) + std::log(sum);
  std::vector<TokenLogprob> result;
  result.push_back({token, static_cast<float>(logit_of(token) - log_sum)});
  if (k <= 0) return result;
  const int wanted = std::min(k, num_ids_);
  const Candidates c = gather_largest(wanted);
  const std::vector<int> order = ranked(c);
  for (int i = 0; i < std::min(wanted, static_cast<int>(order.size())); ++i) {
    const auto at = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
    result.push_back({c.ids[at], static_cast<float>(c.logits[at] - log_sum)});
  }
  return result;
}

Candidates RowSampler::gather(float lowest) const {
  std::size_t count = 0;
  for (const LogitRun& run : runs_) {
    count += static_cast<std::size_t>(ops_.count_at_least(run.x, run.size, lowest));
  }
  Candidates c;
  c.logits.resize(count);
  c.ids.resize(count);
  std::size_t at = 0;
  for (const LogitRun& run : runs_) {
    at += static_cast<std::size_t>(ops_.gather_at_least(run.x, run.size, lowest, run.first_id,
                                                        c.logits.data() + at, c.ids.data() + at));
  }
  return c;
}

Candidates RowSampler::gather_largest(int k) const {
  for (float width = 2.0f; width <= kWidestLogits; width *= 2.0f) {
    int count = 0;
    for (const LogitRun& run : runs_) {
      count += ops_.count_at_least(run.x, run.size, highest_ - width);
    }
    if (count >= k) return gather(highest_ - width);
  }
  return gather(kMinusInfinity);
}

Candidates RowSampler::gather_mass(float share, float temperature, float lowest,
                                   double& total) const {
  total = mass(temperature, lowest);
  for (float width = 4.0f; width <= kWidestLogits; width *= 2.0f) {
    const float bound = highest_ - width * temperature;
    if (bound <= lowest) break;
    if (mass(temperature, bound) >= share * total) return gather(bound);
  }
  return gather(lowest);
}

double RowSampler::mass(float temperature, float lowest) const {
  double sum = 0.0;
  for (const LogitRun& run : runs_) {
    sum += ops_.sum_weights(run.x, run.size, highest_, 1.0f / temperature, lowest);
  }
  return sum;
}

float RowSampler::logit_of(TokenId id) const {
  for (const LogitRun& run : runs_) {
    if (id < run.first_id + run.size) return run.x[id - run.first_id];
  }
  return kMinusInfinity;
}

}  // namespace quire::cpu
