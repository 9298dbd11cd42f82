// The merge loop. Short pieces (nearly all) scan their pairs; long ones use the queue, so that a
// megabyte without a space costs n log n.
#include "coordinator/text/bpe.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/utf8.h"

namespace quire {
namespace {

constexpr std::size_t kFewSymbols = 48;

std::uint64_t pair_key(TokenId left, TokenId right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

}  // namespace

absl::StatusOr<Bpe> Bpe::make(const Vocabulary& vocabulary, const std::vector<TokenId>& members,
                              const std::vector<std::pair<std::string, std::string>>& merges,
                              const BpeOptions& options) {
  Bpe bpe;
  bpe.options_ = options;
  bpe.byte_ids_.fill(-1);
  bpe.fallback_ids_.fill(-1);
  bpe.ids_.reserve(members.size());
  for (const TokenId id : members) {
    const absl::string_view bytes = vocabulary.bytes(id);
    if (const int byte = parse_byte_token(vocabulary.name(id));
        options.byte_fallback && byte >= 0) {
      bpe.fallback_ids_[static_cast<std::size_t>(byte)] = id;
      continue;
    }
    if (!bpe.ids_.try_emplace(bytes, id).second) {
      return absl::InvalidArgumentError(absl::StrCat("tokens ", bpe.ids_[bytes], " and ", id,
                                                     " have the same text \"", vocabulary.name(id),
                                                     "\""));
    }
    if (bytes.size() == 1) bpe.byte_ids_[static_cast<unsigned char>(bytes[0])] = id;
  }
  bpe.has_fallback_ = std::all_of(bpe.fallback_ids_.begin(), bpe.fallback_ids_.end(),
                                  [](TokenId id) { return id >= 0; });
  bpe.merges_.reserve(merges.size());
  std::int32_t rank = 0;
  for (const auto& [left, right] : merges) {
    const TokenId a = bpe.find(left);
    const TokenId b = bpe.find(right);
    const TokenId merged = bpe.find(left + right);
    if (a < 0 || b < 0 || merged < 0) {
      const std::string& missing = a < 0 ? left : b < 0 ? right : left + right;
      return absl::InvalidArgumentError(absl::StrCat("merge ", rank, " (\"", left, "\" + \"", right,
                                                     "\") needs the token \"", missing,
                                                     "\", which the vocabulary does not have"));
    }
    bpe.merges_.try_emplace(pair_key(a, b), Merge{rank, merged});
    ++rank;
  }
  bpe.reachable_ =
      std::make_unique<std::atomic<std::uint8_t>[]>(static_cast<std::size_t>(vocabulary.size()));
  return bpe;
}

TokenId Bpe::find(absl::string_view bytes) const {
  const auto it = ids_.find(bytes);
  return it == ids_.end() ? -1 : it->second;
}

const Bpe::Merge* Bpe::find_merge(TokenId left, TokenId right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void Bpe::encode(absl::string_view piece, std::vector<TokenId>* out) const {
  const TokenId whole = find(piece);
  std::uint8_t known = kUnknown;
  if (whole >= 0) {
    known = reachable_[static_cast<std::size_t>(whole)].load();
    if (known == kYes || options_.ignore_merges) {
      out->push_back(whole);
      return;
    }
  }
  std::vector<TokenId> symbols;
  first_symbols(piece, &symbols);
  if (symbols.size() <= kFewSymbols) {
    merge_few(&symbols);
  } else {
    merge_many(&symbols);
  }
  if (whole >= 0 && known == kUnknown) {
    const bool same = symbols.size() == 1 && symbols[0] == whole;
    reachable_[static_cast<std::size_t>(whole)].store(same ? kYes : kNo);
  }
  out->insert(out->end(), symbols.begin(), symbols.end());
}

void Bpe::first_symbols(absl::string_view piece, std::vector<TokenId>* symbols) const {
  symbols->reserve(piece.size());
  if (options_.byte_level) {
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const TokenId id = byte_ids_[static_cast<unsigned char>(piece[i])];
      if (id >= 0) {
        symbols->push_back(id);
      } else {
        add_unknown(piece.substr(i, 1), symbols);
      }
    }
    return;
  }
  while (!piece.empty()) {
    const auto size = static_cast<std::size_t>(std::max(utf8::decode(piece).size, 1));
    const TokenId id = find(piece.substr(0, size));
    if (id >= 0) {
      symbols->push_back(id);
    } else {
      add_unknown(piece.substr(0, size), symbols);
    }
    piece.remove_prefix(size);
  }
}

void Bpe::add_unknown(absl::string_view character, std::vector<TokenId>* symbols) const {
  if (options_.byte_fallback && has_fallback_) {
    for (const char byte : character) {
      symbols->push_back(fallback_ids_[static_cast<unsigned char>(byte)]);
    }
    return;
  }
  if (options_.unk < 0) return;
  if (options_.fuse_unk && !symbols->empty() && symbols->back() == options_.unk) return;
  symbols->push_back(options_.unk);
}

void Bpe::merge_few(std::vector<TokenId>* symbols) const {
  constexpr std::int32_t kNone = std::numeric_limits<std::int32_t>::max();
  std::array<Merge, kFewSymbols> merges;  // of symbol i with symbol i + 1
  std::size_t n = symbols->size();
  TokenId* ids = symbols->data();
  const auto look = [&](std::size_t i) {
    const Merge* merge = find_merge(ids[i], ids[i + 1]);
    merges[i] = merge == nullptr ? Merge{kNone, -1} : *merge;
  };
  for (std::size_t i = 0; i + 1 < n; ++i) look(i);
  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNone) break;
    ids[best] = merges[best].id;
    std::move(ids + best + 2, ids + n, ids + best + 1);
    std::move(merges.begin() + best + 1, merges.begin() + n - 1, merges.begin() + best);
    --n;
    if (best > 0) look(best - 1);
    if (best + 1 < n) look(best);
  }
  symbols->resize(n);
}

void Bpe::merge_many(std::vector<TokenId>* symbols) const {
  std::vector<MergeSymbol> linked(symbols->size());
  for (std::size_t i = 0; i < linked.size(); ++i) {
    const auto index = static_cast<std::int32_t>(i);
    linked[i] = {i, 1, (*symbols)[i], index - 1, i + 1 < linked.size() ? index + 1 : -1};
  }
  merge_symbols(linked, [this](const MergeSymbol& a, const MergeSymbol& b, std::uint32_t* order,
                               TokenId* id) {
    const Merge* merge = find_merge(a.id, b.id);
    if (merge == nullptr) return false;
    *order = static_cast<std::uint32_t>(merge->rank);
    *id = merge->id;
    return true;
  });
  symbols->clear();
  for (const MergeSymbol& symbol : linked) {
    if (symbol.size > 0) symbols->push_back(symbol.id);
  }
}

}  // namespace quire
