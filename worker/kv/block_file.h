// KV blocks of one rank in a file that outlives the process. It belongs to one process at a time.
//
// [header][checksum of every slot][slots]. The header says what the blocks are blocks of, and the
// id of what they were when they were last put down whole (`saved`; 0: nothing). That id leaves the
// disk before a slot is written and comes back only after every slot has reached it: a crash loses
// what was saved and can never bring other blocks in its place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace quire {

// What the content depends on. A file of anything else is void.
struct BlockFileLayout {
  std::uint64_t model_hash = 0;
  std::uint64_t digest = 0;  // of everything else: arithmetic, shards, rank, KV type
  std::size_t block_bytes = 0;
  int num_blocks = 0;
};

class BlockFile {
 public:
  // Makes the file, or takes it over, with room on the disk for all of it. OutOfRange: there is no
  // such folder or not so much room (bytes needed and free); Unavailable: after `patience` another
  // process still has it.
  static absl::StatusOr<std::unique_ptr<BlockFile>> open(
      const std::string& path, const BlockFileLayout& layout,
      absl::Duration patience = absl::Seconds(5));
  ~BlockFile();
  BlockFile(const BlockFile&) = delete;
  BlockFile& operator=(const BlockFile&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t saved() const { return saved_; }
  // Whether the slot was written since open() or clear(), or lay in the file when it was opened.
  bool holds(int slot) const { return sums_[static_cast<std::size_t>(slot)] != 0; }

  // Takes the id off the disk. Without it nothing may be written.
  absl::Status unseal();
  void clear();  // no slot holds anything
  // One thread at a time, `block` of block_bytes. DataLoss: the file did not take the block, or has
  // another than was written.
  absl::Status write(int slot, const void* block);
  absl::Status read(int slot, void* block) const;
  // Brings everything to the disk, then the id.
  absl::Status seal(std::uint64_t id);

 private:
  BlockFile(std::string path, const BlockFileLayout& layout);
  absl::Status open_and_lock(absl::Duration patience);
  bool read_header();
  absl::Status make_room();
  absl::Status write_header(std::uint64_t saved);
  absl::Status write_at(std::size_t offset, const void* from, std::size_t bytes);
  absl::Status read_at(std::size_t offset, void* to, std::size_t bytes) const;
  absl::Status sync();
  std::size_t table_bytes() const;
  std::size_t offset_of(int slot) const;
  std::size_t file_bytes() const { return offset_of(layout_.num_blocks); }

  const std::string path_;
  const BlockFileLayout layout_;
  int file_ = -1;
  std::uint64_t saved_ = 0;
  std::vector<std::uint64_t> sums_;  // [slot]; 0: it holds nothing
};

}  // namespace quire
