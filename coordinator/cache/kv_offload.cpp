// What KvManager does with the offload store: places in it, and its content over restarts.
#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/hash.h"
#include "common/status.h"
#include "coordinator/cache/kv_manager.h"

namespace quire {
namespace {

// One node as it is stored: a parent stands before its children, -1 - s is the root of scope s.
struct StoredNode {
  std::int32_t parent = 0;
  HostBlockId host = 0;
  std::int32_t priority = 0;
};

constexpr std::uint64_t kFormat = 0x31786469'65726975;  // changes with what follows

class Writer {
 public:
  template <typename T>
  void put(const T& value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void put_bytes(absl::string_view bytes) {
    put(static_cast<std::uint64_t>(bytes.size()));
    out_.append(bytes.data(), bytes.size());
  }
  std::string take() && {
    put(hash64(kFormat, out_));
    return std::move(out_);
  }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(absl::string_view bytes) : rest_(bytes) {}
  template <typename T>
  bool get(T* value) {
    if (rest_.size() < sizeof(T)) return false;
    std::memcpy(value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return true;
  }
  bool get_bytes(std::uint64_t size, absl::string_view* bytes) {
    if (rest_.size() < size) return false;
    *bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

 private:
  absl::string_view rest_;
};

absl::Status spoiled() {
  return absl::DataLossError("The index of saved prefixes is spoiled; it is not used.");
}

}  // namespace

// -1 if every place is read by the plan that is being made. What that plan saves itself may still
// give up its place: a chain that is longer than the store keeps its beginning.
HostBlockId KvManager::allocate_host() {
  if (!free_hosts_.empty()) {
    const HostBlockId host = free_hosts_.back();
    free_hosts_.pop_back();
    return host;
  }
  NodeId node = stored_.first();
  while (node != kNoNode && loading_hosts_.contains(index_.at(node).host)) {
    node = stored_.after(node);
  }
  if (node == kNoNode) return -1;
  const HostBlockId host = index_.at(node).host;
  std::erase_if(moves_.saves, [host](const BlockSwap& save) { return save.host == host; });
  stored_.remove(node);
  index_.at(node).host = -1;
  if (index_.at(node).block < 0) drop(node);
  return host;
}

// The latest of its class.
void KvManager::touch_stored(NodeId node) {
  stored_.remove(node);
  stored_.push(node, index_.at(node).priority);
}

// `block` is what `node` has on the device.
void KvManager::save(NodeId node, BlockId block) {
  if (num_host_blocks_ == 0) return;
  const HostBlockId host = allocate_host();
  if (host < 0) return;
  moves_.saves.push_back({block, host});
  index_.at(node).host = host;
  stored_.push(node, index_.at(node).priority);
}

void KvManager::begin_saving_all() {
  QUIRE_CHECK_EQ(pool_.num_used(), 0);
  to_save_.clear();
  for (NodeId node = unreferenced_.first(); node != kNoNode; node = unreferenced_.after(node)) {
    to_save_.push_back(node);
  }
  const auto room = static_cast<std::size_t>(num_host_blocks_);
  if (to_save_.size() > room) {
    to_save_.erase(to_save_.begin(), to_save_.end() - static_cast<std::ptrdiff_t>(room));
  }
  // Leaves before what is above them, as they would have been evicted.
  std::reverse(to_save_.begin(), to_save_.end());
}

void KvManager::save_some(int most) {
  while (most > 0 && !to_save_.empty()) {
    const NodeId node = to_save_.back();
    to_save_.pop_back();
    if (index_.at(node).host >= 0) {
      touch_stored(node);
      continue;
    }
    save(node, index_.at(node).block);
    --most;
  }
}

std::string KvManager::stored_index() const {
  Writer out;
  out.put(kFormat);
  out.put(static_cast<std::int32_t>(options_.block_size));
  out.put(static_cast<std::int32_t>(num_host_blocks_));
  std::vector<std::pair<NodeId, std::int32_t>> open;  // a node to write, what its parent is called
  std::vector<std::string> scopes;
  for (const auto& [scope, root] : index_.roots()) scopes.push_back(scope);
  std::sort(scopes.begin(), scopes.end());  // the table's own order is another in every process
  for (std::size_t i = 0; i < scopes.size(); ++i) {
    for (NodeId child = index_.at(index_.find_root(scopes[i])).first_child; child != kNoNode;
         child = index_.at(child).older_sibling) {
      open.emplace_back(child, -static_cast<std::int32_t>(i) - 1);
    }
  }
  out.put(static_cast<std::uint64_t>(scopes.size()));
  for (const std::string& scope : scopes) out.put_bytes(scope);
  std::vector<std::pair<NodeId, StoredNode>> nodes;
  while (!open.empty()) {
    const auto [node, parent] = open.back();
    open.pop_back();
    if (index_.at(node).host < 0) continue;  // nothing below it can be reached either
    const auto name = static_cast<std::int32_t>(nodes.size());
    nodes.push_back({node, {parent, index_.at(node).host, index_.at(node).priority}});
    for (NodeId child = index_.at(node).first_child; child != kNoNode;
         child = index_.at(child).older_sibling) {
      open.emplace_back(child, name);
    }
  }
  out.put(static_cast<std::uint64_t>(nodes.size()));
  for (const auto& [node, stored] : nodes) {
    out.put(stored);
    const absl::Span<const TokenId> tokens = index_.tokens(node);
    out.put_bytes({reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(TokenId)});
  }
  return std::move(out).take();
}

absl::Status KvManager::restore(absl::string_view bytes) {
  QUIRE_CHECK_EQ(index_.num_nodes(), 0);
  std::uint64_t checksum = 0;
  if (bytes.size() < sizeof(checksum)) return spoiled();
  const absl::string_view content = bytes.substr(0, bytes.size() - sizeof(checksum));
  std::memcpy(&checksum, bytes.data() + content.size(), sizeof(checksum));
  Reader in(content);
  std::uint64_t format = 0, count = 0, size = 0;
  std::int32_t block_size = 0, num_host_blocks = 0;
  if (checksum != hash64(kFormat, content) || !in.get(&format) || format != kFormat ||
      !in.get(&block_size) || !in.get(&num_host_blocks) || !in.get(&count)) {
    return spoiled();
  }
  if (block_size != options_.block_size || num_host_blocks != num_host_blocks_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "The saved prefixes are ", num_host_blocks, " blocks of ", block_size,
        " tokens, but the offload store has ", num_host_blocks_, " of ", options_.block_size, "."));
  }
  std::vector<NodeId> roots;
  for (std::uint64_t i = 0; i < count; ++i) {
    absl::string_view scope;
    if (!in.get(&size) || !in.get_bytes(size, &scope)) return spoiled();
    roots.push_back(index_.root(scope));
  }
  if (!in.get(&count)) return spoiled();
  std::vector<NodeId> nodes;
  std::vector<bool> taken(static_cast<std::size_t>(num_host_blocks_), false);
  const std::uint64_t block_bytes = static_cast<std::uint64_t>(block_size) * sizeof(TokenId);
  for (std::uint64_t i = 0; i < count; ++i) {
    StoredNode stored;
    absl::string_view tokens;
    if (!in.get(&stored) || !in.get(&size) || size != block_bytes || !in.get_bytes(size, &tokens) ||
        stored.host < 0 || stored.host >= num_host_blocks_ ||
        taken[static_cast<std::size_t>(stored.host)] ||
        stored.parent >= static_cast<std::int32_t>(nodes.size()) ||
        -stored.parent > static_cast<std::int32_t>(roots.size())) {
      return spoiled();
    }
    const NodeId parent = stored.parent < 0 ? roots[static_cast<std::size_t>(-stored.parent - 1)]
                                            : nodes[static_cast<std::size_t>(stored.parent)];
    std::vector<TokenId> ids(static_cast<std::size_t>(block_size));
    std::memcpy(ids.data(), tokens.data(), tokens.size());
    const NodeId node = index_.insert(parent, ids);
    if (node == kNoNode) return spoiled();
    index_.at(node).host = stored.host;
    index_.at(node).priority = stored.priority;
    taken[static_cast<std::size_t>(stored.host)] = true;
    nodes.push_back(node);
  }
  // Leaves go first.
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    stored_.push(*node, index_.at(*node).priority);
  }
  std::erase_if(free_hosts_,
                [&](HostBlockId host) { return taken[static_cast<std::size_t>(host)]; });
  return absl::OkStatus();
}

}  // namespace quire
