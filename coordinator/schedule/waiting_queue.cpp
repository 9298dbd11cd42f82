// Lines of waiting sequences and the tenants' counters.
#include "coordinator/schedule/waiting_queue.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/check.h"

namespace quire {

WaitingQueue::WaitingQueue(Policy policy, std::vector<double> weights)
    : policy_(policy),
      weights_(std::move(weights)),
      lines_(policy == Policy::kFair ? weights_.size() : 1),
      service_(weights_.size(), 0.0),
      present_(weights_.size(), 0) {
  QUIRE_CHECK(!weights_.empty());
}

std::size_t WaitingQueue::line_of(const Sequence& sequence) const {
  return policy_ == Policy::kFair ? static_cast<std::size_t>(sequence.request->tenant) : 0;
}

void WaitingQueue::push(Sequence* sequence) {
  QUIRE_CHECK(lines_[line_of(*sequence)].insert(sequence).second);
  ++size_;
  num_tokens_ += sequence->num_prompt_tokens;
}

void WaitingQueue::remove(Sequence* sequence) {
  QUIRE_CHECK_EQ(lines_[line_of(*sequence)].erase(sequence), std::size_t{1});
  --size_;
  num_tokens_ -= sequence->num_prompt_tokens;
}

const WaitingQueue::Line* WaitingQueue::next_line() const {
  const Line* next = nullptr;
  double least = 0.0;
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    if (lines_[i].empty() || (next != nullptr && service_[i] >= least)) continue;
    next = &lines_[i];
    least = service_[i];
  }
  return next;
}

Sequence* WaitingQueue::head() const {
  const Line* line = next_line();
  return line == nullptr ? nullptr : *line->begin();
}

Sequence* WaitingQueue::first_of(RequestId request) const {
  for (const Line& line : lines_) {
    for (Sequence* sequence : line) {
      if (sequence->request->id == request) return sequence;
    }
  }
  return nullptr;
}

void WaitingQueue::first(int count, std::vector<Sequence*>* out) const {
  out->clear();
  const Line* line = next_line();
  if (line == nullptr) return;
  for (Sequence* sequence : *line) {
    if (static_cast<int>(out->size()) == count) return;
    out->push_back(sequence);
  }
}

std::int64_t WaitingQueue::tokens_before(std::int64_t order_us, int skip) const {
  constexpr int kMostWalked = 4096;
  if (policy_ == Policy::kFair || policy_ == Policy::kLpm) return 0;
  std::int64_t tokens = 0;
  int walked = 0;
  for (const Sequence* sequence : lines_.front()) {
    if (sequence->request->order_us >= order_us || walked == kMostWalked) break;
    if (walked++ >= skip) tokens += sequence->num_prompt_tokens;
  }
  return tokens;
}

std::vector<Sequence*> WaitingQueue::all() const {
  std::vector<Sequence*> out;
  for (const Line& line : lines_) out.insert(out.end(), line.begin(), line.end());
  return out;
}

void WaitingQueue::enter(int tenant) {
  const auto index = static_cast<std::size_t>(tenant);
  if (present_[index]++ > 0) return;
  double floor = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < present_.size(); ++i) {
    if (i != index && present_[i] > 0) floor = std::min(floor, service_[i]);
  }
  if (floor == std::numeric_limits<double>::infinity()) floor = last_floor_;
  service_[index] = std::max(service_[index], floor);
}

void WaitingQueue::leave(int tenant) {
  const auto index = static_cast<std::size_t>(tenant);
  QUIRE_CHECK_GT(present_[index], 0);
  if (--present_[index] == 0) last_floor_ = service_[index];
}

void WaitingQueue::charge(int tenant, double tokens) {
  const auto index = static_cast<std::size_t>(tenant);
  service_[index] += tokens / weights_[index];
}

}  // namespace quire
