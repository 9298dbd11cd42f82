// Merging by score; see spm.h.
#include "coordinator/text/spm.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "common/utf8.h"
#include "coordinator/text/merge_queue.h"

namespace quire {
namespace {

// The highest score first: floats as integers in the opposite order.
std::uint32_t order_of(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(score);
  return (bits & 0x80000000u) != 0 ? bits : ~bits & 0x7FFFFFFFu;
}

}  // namespace

absl::StatusOr<Spm> Spm::make(const std::vector<Member>& members,
                              const std::array<TokenId, 256>& byte_ids, TokenId unk) {
  Spm spm;
  spm.byte_ids_ = byte_ids;
  spm.unk_ = unk;
  spm.tokens_.reserve(members.size());
  for (const Member& member : members) {
    const auto [it, is_new] = spm.tokens_.try_emplace(member.text, Found{member.id, member.score});
    if (!is_new) {
      return absl::InvalidArgumentError(absl::StrCat("tokens ", it->second.id, " and ", member.id,
                                                     " have the same text \"", member.text, "\""));
    }
    spm.longest_ = std::max(spm.longest_, member.text.size());
  }
  return spm;
}

void Spm::encode(absl::string_view text, std::vector<TokenId>* out) const {
  std::vector<MergeSymbol> symbols;
  symbols.reserve(text.size());
  for (std::size_t begin = 0; begin < text.size();) {
    const auto size = static_cast<std::size_t>(std::max(utf8::decode(text.substr(begin)).size, 1));
    const auto it = tokens_.find(text.substr(begin, size));
    const auto index = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({begin, static_cast<std::uint32_t>(size),
                       it == tokens_.end() ? -1 : it->second.id, index - 1, index + 1});
    begin += size;
  }
  if (!symbols.empty()) symbols.back().next = -1;
  merge_symbols(symbols,
                [&](const MergeSymbol& a, const MergeSymbol& b, std::uint32_t* order, TokenId* id) {
                  const std::size_t size = static_cast<std::size_t>(a.size) + b.size;
                  if (size > longest_) return false;
                  const auto it = tokens_.find(text.substr(a.begin, size));
                  if (it == tokens_.end()) return false;
                  *order = order_of(it->second.score);
                  *id = it->second.id;
                  return true;
                });
  for (const MergeSymbol& symbol : symbols) {
    if (symbol.size == 0) continue;
    if (symbol.id >= 0) {
      out->push_back(symbol.id);
      continue;
    }
    for (const char byte : text.substr(symbol.begin, symbol.size)) {
      const TokenId id = byte_ids_[static_cast<unsigned char>(byte)];
      if (id >= 0) {
        out->push_back(id);
      } else if (unk_ >= 0) {
        out->push_back(unk_);
        break;
      }
    }
  }
}

}  // namespace quire
