// Block tables: which blocks hold the KV of which sequence; the prefix cache behind them; what
// moves between blocks, device and offload store. The engine's thread owns it.
//
// A block is shared by reference count: forks share every block, also the partly filled last one,
// and whoever writes first copies it. Full blocks whose content has been computed are offered to
// the prefix index; two sequences that computed the same content end up with one block. What nobody
// holds any more stays cached until room is needed: the leaf that was left first goes first, to the
// offload store if there is one.
//
// Every KV group of a sequence has a table of the same length, so one id stands for one block of
// each group: id * groups + group on the wire.
//
// Invariants: tables hold exactly the references that the pool counts; a cached block is a node of
// the index; a block that a table holds has all nodes above its own held by that table, too.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/step.h"
#include "coordinator/cache/block_pool.h"
#include "coordinator/cache/prefix_index.h"
#include "coordinator/cache/recency.h"

namespace quire {

using BlockLists = std::vector<std::vector<BlockId>>;  // [KV group][block]

// The block table of one sequence: position p lives in blocks[p / block_size].
struct BlockTable {
  std::vector<BlockId> blocks;
  int num_right = 0;      // leading entries that the workers have as they are here
  int num_sent = 0;       // entries that the workers have
  int num_offered = 0;    // leading blocks that are in the prefix index
  NodeId tail = kNoNode;  // the node of the last of those
  bool forked = false;    // the block that is written next may be shared
  bool offers = true;     // false: the index could not take one, so nothing behind it either
  int num_blocks() const { return static_cast<int>(blocks.size()); }
};

// What the index knows of a prompt.
struct PrefixHit {
  std::vector<NodeId> nodes;  // full blocks, from the root
  NodeId partial = kNoNode;   // a block that begins with what follows, to be copied
  int num_tokens = 0;         // of all of it
  int num_loads = 0;          // of `nodes`, those only in the offload store
  int num_taken = 0;          // blocks that attach() takes from the available ones
};

// What workers have to move before the rows of the next plan. Ids are those of tables.
struct BlockMoves {
  std::vector<BlockSwap> saves, loads;
  std::vector<BlockCopy> copies;
  int num_dropped = 0;  // blocks that were evicted without a save
};

class KvManager {
 public:
  struct Options {
    int block_size = 16;
    bool prefix_caching = true;
    std::uint64_t hash_key = 0;
  };
  explicit KvManager(Options options);

  // A new worker group: every table must have been released before. All content is forgotten.
  void reset(int num_blocks, int num_host_blocks);

  // --- the prefix cache ---
  // At most `most_tokens` of `tokens`; `from_host`: also what must be loaded.
  PrefixHit match(absl::string_view scope, absl::Span<const TokenId> tokens, int most_tokens,
                  bool from_host) const;
  void forget_partial(PrefixHit* hit) const;
  // Into an empty table; hit.num_taken blocks must be available.
  void attach(const PrefixHit& hit, int priority, BlockTable* table);
  // There is something to offer() once so many positions are computed.
  bool has_to_offer(int num_computed, const BlockTable& table) const {
    return options_.prefix_caching && table.offers &&
           num_computed >= (table.num_offered + 1) * options_.block_size;
  }
  // The first `num_computed` of `tokens` are computed: keep what is full. `priority`: whose.
  void offer(absl::string_view scope, absl::Span<const TokenId> tokens, int num_computed,
             int priority, BlockTable* table);

  // --- tables ---
  // All of `num_tokens` positions are in blocks of the table's own: reserve() has nothing to do.
  bool covers(int num_tokens, const BlockTable& table) const {
    return !table.forked && num_tokens <= table.num_blocks() * options_.block_size;
  }
  // Blocks that reserve() takes.
  int missing_blocks(int num_computed, int num_tokens, const BlockTable& table) const;
  // Makes `table` cover `num_tokens` positions and the block of position `num_computed` its own.
  // All or nothing: false, with nothing changed, if the pool has no room.
  bool reserve(int num_computed, int num_tokens, BlockTable* table);
  void fork(BlockTable* parent, BlockTable* child);
  void release(BlockTable* table);
  // Those since the last call; they must go out with the next plan.
  BlockMoves take_moves();

  // --- the offload store ---
  // Evicted blocks are saved; if not all, then those that were found at least once, or kept.
  void set_saving_all(bool all) { saving_all_ = all; }
  void keep(const BlockTable& table);
  // Gives what is cached on the device a place in the store, as far as there is room for the latest
  // of it: saves of the next plans, at most `most` of each. Nothing may be in use.
  void begin_saving_all();
  void save_some(int most);
  // What the store holds, as bytes that restore() takes in a later life, after reset().
  std::string stored_index() const;
  absl::Status restore(absl::string_view bytes);

  int blocks_for(int num_tokens) const {
    return (num_tokens + options_.block_size - 1) / options_.block_size;
  }
  bool is_shared(BlockId block) const;
  int num_total() const { return pool_.num_total(); }
  int num_available() const { return pool_.num_free() + pool_.num_cached(); }
  int num_used() const { return pool_.num_used(); }
  int num_cached() const { return pool_.num_cached(); }
  int num_host_blocks() const { return num_host_blocks_; }
  int block_size() const { return options_.block_size; }

  // Internal unless counts match `tables`, which must be all there are.
  absl::Status verify(absl::Span<const BlockTable* const> tables) const;

 private:
  BlockId allocate();
  void evict();
  HostBlockId allocate_host();
  void drop(NodeId node);  // with all below it
  void acquire(BlockId block);
  void give_back(BlockId block);
  void save(NodeId node, BlockId block);
  void touch_stored(NodeId node);
  bool copies_on_write(int num_computed, const BlockTable& table) const;
  absl::Status verify_index() const;

  const Options options_;
  BlockPool pool_;
  PrefixIndex index_;
  std::vector<NodeId> node_of_block_;  // kNoNode: not in the index
  Recency unreferenced_;               // nodes whose block is cached
  int num_host_blocks_ = 0;
  bool saving_all_ = true;
  std::vector<HostBlockId> free_hosts_;
  Recency stored_;               // nodes with a place in the offload store
  std::vector<NodeId> to_save_;  // since begin_saving_all(), the next one last
  BlockMoves moves_;
  std::vector<BlockId> pins_;                       // sources of copies, until moves are taken
  absl::flat_hash_set<HostBlockId> loading_hosts_;  // read by moves_
};

}  // namespace quire
