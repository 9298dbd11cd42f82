// Splitting by expressions; see pretokenizer.h.
#include "coordinator/text/pretokenizer.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/status.h"
#include "common/utf8.h"

namespace quire {
namespace {

using Pieces = std::vector<absl::string_view>;

// A stretch of the text: a match, or what lies between two.
struct Stretch {
  std::size_t begin;
  std::size_t end;
  bool match;
};

absl::Status find_stretches(const SplitStep& step, absl::string_view text,
                            std::vector<Stretch>* out) {
  out->clear();
  Regex::Cursor cursor(step.regex);
  Regex::Match match;
  std::size_t done = 0;
  std::size_t from = 0;
  while (from < text.size() && cursor.find(text, from, &match)) {
    if (match.begin == match.end) {  // nothing to cut out: step over one character
      if (match.begin >= text.size()) break;
      from = match.begin +
             static_cast<std::size_t>(std::max(utf8::decode(text.substr(match.begin)).size, 1));
      continue;
    }
    if (match.begin > done) out->push_back({done, match.begin, step.invert});
    out->push_back({match.begin, match.end, !step.invert});
    done = from = match.end;
  }
  QUIRE_RETURN_IF_ERROR(cursor.status());
  if (done < text.size()) out->push_back({done, text.size(), step.invert});
  return absl::OkStatus();
}

void join_contiguous(std::vector<Stretch>* stretches) {
  std::vector<Stretch> joined;
  for (const Stretch& s : *stretches) {
    if (!joined.empty() && joined.back().match == s.match) {
      joined.back().end = s.end;
    } else {
      joined.push_back(s);
    }
  }
  *stretches = std::move(joined);
}

// A match joins the stretch before it, unless that one is a match too.
void join_previous(std::vector<Stretch>* stretches) {
  std::vector<Stretch> joined;
  bool after_match = false;
  for (const Stretch& s : *stretches) {
    if (s.match && !after_match && !joined.empty()) {
      joined.back().end = s.end;
    } else {
      joined.push_back(s);
    }
    after_match = s.match;
  }
  *stretches = std::move(joined);
}

void join_next(std::vector<Stretch>* stretches) {
  std::vector<Stretch> joined;  // from the back
  bool before_match = false;
  for (auto s = stretches->rbegin(); s != stretches->rend(); ++s) {
    if (s->match && !before_match && !joined.empty()) {
      joined.back().begin = s->begin;
    } else {
      joined.push_back(*s);
    }
    before_match = s->match;
  }
  std::reverse(joined.begin(), joined.end());
  *stretches = std::move(joined);
}

void apply_behaviour(SplitBehaviour behaviour, std::vector<Stretch>* stretches) {
  switch (behaviour) {
    case SplitBehaviour::kIsolated:
      return;
    case SplitBehaviour::kRemoved:
      stretches->erase(std::remove_if(stretches->begin(), stretches->end(),
                                      [](const Stretch& s) { return s.match; }),
                       stretches->end());
      return;
    case SplitBehaviour::kContiguous:
      return join_contiguous(stretches);
    case SplitBehaviour::kMergedWithPrevious:
      return join_previous(stretches);
    case SplitBehaviour::kMergedWithNext:
      return join_next(stretches);
  }
}

}  // namespace

absl::string_view PreTokenizer::prepare(absl::string_view text, bool first,
                                        std::string* storage) const {
  if (!spaces_.has_value() || text.empty()) return text;
  std::string out = spaces_->replacement == " "
                        ? std::string(text)
                        : absl::StrReplaceAll(text, {{" ", spaces_->replacement}});
  const bool wanted = spaces_->prefix == SpaceRule::Prefix::kAlways ||
                      (spaces_->prefix == SpaceRule::Prefix::kFirst && first);
  if (wanted && !absl::StartsWith(out, spaces_->replacement)) {
    out.insert(0, spaces_->replacement);
  }
  *storage = std::move(out);
  return *storage;
}

absl::Status PreTokenizer::split(absl::string_view text, Pieces* pieces) const {
  pieces->clear();
  if (text.empty()) return absl::OkStatus();
  pieces->push_back(text);
  std::vector<Stretch> stretches;
  Pieces next;
  for (const SplitStep& step : steps_) {
    next.clear();
    for (const absl::string_view piece : *pieces) {
      QUIRE_RETURN_IF_ERROR(find_stretches(step, piece, &stretches));
      apply_behaviour(step.behaviour, &stretches);
      for (const Stretch& s : stretches) next.push_back(piece.substr(s.begin, s.end - s.begin));
    }
    pieces->swap(next);
  }
  return absl::OkStatus();
}

}  // namespace quire
