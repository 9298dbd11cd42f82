// A compiled regular expression as tokenizers write them (Oniguruma's dialect, Unicode classes),
// run by PCRE2's JIT. Immutable and shared by threads; each thread of matching has its own Cursor.
// Subjects must be valid UTF-8: they are not validated again.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire {

class Regex {
 public:
  // InvalidArgument with PCRE2's reason and the place in the pattern.
  static absl::StatusOr<Regex> compile(const std::string& pattern);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Where a match was found, as byte offsets into the subject.
  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  class Cursor {
   public:
    explicit Cursor(const Regex& regex);
    ~Cursor();
    Cursor(const Cursor&) = delete;
    Cursor& operator=(const Cursor&) = delete;

    // The leftmost match at or after `from`. False: none, or the match gave up (see status()).
    bool find(absl::string_view subject, std::size_t from, Match* match);
    // ResourceExhausted once a match ran over PCRE2's limits.
    absl::Status status() const { return status_; }

   private:
    struct State;
    std::unique_ptr<State> state_;
    absl::Status status_;
  };

 private:
  Regex();
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace quire
