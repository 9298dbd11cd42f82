// Which of cuBLASLt's algorithms a shape runs, chosen once and kept: for the life of the process,
// and in a file for the ones after it, so that a restart computes the same bits. The first time a
// shape is met all candidates are timed and the fastest stays. Nothing here knows the library.
//
// The file belongs to one GPU model and one version of the library (both are in its name and in its
// first lines) and ends with a checksum; one that is torn, foreign or of another form is ignored
// and written anew. Several ranks may share it: it is replaced as a whole, and what others have
// added stays.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/linear/lt_gemm.h"

namespace quire::cuda {

// The library's own words, which it lets us keep for the same version of it.
using LtAlgorithm = std::array<std::uint64_t, 8>;

struct LtChoice {
  LtAlgorithm algorithm = {};
  double microseconds = 0.0;  // when it was chosen; 0: not timed
};

// What only the library can say.
struct LtProbe {
  // May this algorithm from the file run the shape?
  std::function<bool(const LtAlgorithm&)> fits;
  // Algorithms for the shape, the most promising first.
  std::function<std::vector<LtAlgorithm>()> candidates;
  // Microseconds of one product; nothing where it does not run.
  std::function<std::optional<double>(const LtAlgorithm&)> time;
};

class LtTable {
 public:
  using Log = std::function<void(const std::string&)>;
  // `folder` empty: no file. `log` hears why a file was ignored or could not be written.
  LtTable(const std::string& folder, const std::string& gpu, const std::string& library, Log log);

  // The shape's algorithm; null: the library has none. `may_time` false (a stream that is being
  // captured): a new shape takes the first candidate, which is kept in memory only.
  const LtChoice* choose(const LtShape& shape, const LtProbe& probe, bool may_time);
  // Whether choose() was asked before.
  bool knows(const LtShape& shape) const { return used_.contains(shape); }
  // What was chosen before; null where the shape is new or refused.
  const LtChoice* find(const LtShape& shape) const;
  // The same of any shape of this size, whatever its alignments and strides: for descriptions.
  const LtChoice* find_like(const LtShape& shape) const;

  const std::string& path() const { return path_; }

 private:
  using Rows = std::map<LtShape, LtChoice>;

  std::optional<LtChoice> measure(const LtProbe& probe) const;
  std::string text(const Rows& rows) const;
  // The rows of a file's text, or why it is ignored.
  std::optional<Rows> parse(const std::string& text, std::string& why) const;
  Rows read() const;
  void write() const;

  std::string gpu_, library_, path_;
  Log log_;
  Rows stored_;                                      // as read at the start
  std::map<LtShape, std::optional<LtChoice>> used_;  // by this process
  std::set<LtShape> unfit_;                          // whose stored row the library refused
};

}  // namespace quire::cuda
