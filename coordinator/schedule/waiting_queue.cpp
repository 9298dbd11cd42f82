// Lines of waiting sequences.
#include "coordinator/schedule/waiting_queue.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace quire {

WaitingQueue::WaitingQueue(Policy policy, std::shared_ptr<const TenantShares> shares)
    : policy_(policy),
      shares_(std::move(shares)),
      lines_(policy == Policy::kFair ? static_cast<std::size_t>(shares_->num_tenants()) : 1) {}

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
    const double service = shares_->service()[i];
    if (lines_[i].empty() || (next != nullptr && service >= least)) continue;
    next = &lines_[i];
    least = service;
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

WaitingQueue::Walk::Walk(const WaitingQueue& queue, std::vector<double> ahead)
    : queue_(&queue), ahead_(std::move(ahead)) {
  for (const Line& line : queue.lines_) at_.push_back(line.begin());
}

Sequence* WaitingQueue::Walk::next() {
  const std::vector<Line>& lines = queue_->lines_;
  std::size_t next = lines.size();
  double least = 0.0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (at_[i] == lines[i].end()) continue;
    const double service = queue_->shares_->service()[i] + ahead_[i];
    if (next < lines.size() && service >= least) continue;
    next = i;
    least = service;
  }
  return next == lines.size() ? nullptr : *at_[next]++;
}

}  // namespace quire
