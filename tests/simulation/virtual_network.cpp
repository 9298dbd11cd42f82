#include "tests/simulation/virtual_network.h"

#include <algorithm>
#include <utility>

namespace quire::test {

void VirtualNetwork::detach() {
  coordinator_ = {};
  ++life_;
  for (auto& [id, link] : links_) {
    link.is_open = false;
    tell_rank(id, down::Broken{});
  }
}

LinkId VirtualNetwork::open(std::function<void(const Down&)> rank) {
  if (!is_attached()) return 0;
  const LinkId id = ++last_;
  Link& link = links_[id];
  link.rank = std::move(rank);
  link.life = life_;
  link.delay = world_.about(world_.network_delay);
  coordinator_.opened(id);
  return id;
}

absl::Time VirtualNetwork::arrival(absl::Duration delay, absl::Time* free) {
  *free = std::max(*free, time_.now() + delay + world_.about(world_.network_delay / 4));
  return *free;
}

void VirtualNetwork::send(LinkId id, Up message) {
  Link& link = links_.at(id);
  if (link.is_cut && world_.chance(0.5)) return;
  link.last = message;
  // On a stream that is cut it lay in some buffer: nobody knows for how long.
  absl::Duration delay = link.delay;
  if (link.is_cut) delay += world_.between(absl::ZeroDuration(), absl::Seconds(3));
  time_.at(arrival(delay, &link.up_free), [this, id, message = std::move(message)] {
    if (links_.at(id).life == life_ && is_attached()) coordinator_.up(id, message);
  });
}

void VirtualNetwork::send(LinkId id, Down message) {
  const Link& link = links_.at(id);
  if (link.is_open && !link.is_cut) tell_rank(id, std::move(message));
}

void VirtualNetwork::tell_rank(LinkId id, Down message) {
  Link& link = links_.at(id);
  time_.at(arrival(link.delay, &link.down_free), [this, id, message = std::move(message)] {
    Link& found = links_.at(id);
    if (found.rank == nullptr) return;
    const bool is_last = std::holds_alternative<down::Closed>(message) ||
                         std::holds_alternative<down::Broken>(message) ||
                         std::holds_alternative<down::Refusal>(message);
    const auto rank = is_last ? std::exchange(found.rank, nullptr) : found.rank;
    rank(message);
  });
}

void VirtualNetwork::tell_gone(LinkId id) {
  Link& link = links_.at(id);
  time_.at(arrival(link.delay, &link.up_free), [this, id] {
    Link& found = links_.at(id);
    if (found.life != life_ || !is_attached() || !found.is_open) return;
    found.is_open = false;
    coordinator_.gone(id);
  });
}

void VirtualNetwork::leave(LinkId id) {
  const auto link = links_.find(id);
  if (link == links_.end() || link->second.rank == nullptr) return;
  link->second.rank = nullptr;
  tell_gone(id);
}

void VirtualNetwork::close(LinkId id) {
  Link& link = links_.at(id);
  if (!link.is_open) return;
  link.is_open = false;
  if (!link.is_cut) tell_rank(id, down::Closed{});
}

void VirtualNetwork::cut(LinkId id) {
  Link& link = links_.at(id);
  if (link.is_cut || link.rank == nullptr) return;
  tell_gone(id);
  tell_rank(id, down::Broken{});
  link.is_cut = true;
}

void VirtualNetwork::repeat(LinkId id) {
  const Link& link = links_.at(id);
  if (!std::holds_alternative<RankHello>(link.last)) send(id, Up(link.last));
}

std::vector<LinkId> VirtualNetwork::open_links() const {
  std::vector<LinkId> open;
  for (const auto& [id, link] : links_) {
    if (link.rank != nullptr && !link.is_cut) open.push_back(id);
  }
  return open;
}

}  // namespace quire::test
