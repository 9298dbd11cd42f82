// The trie of added tokens; see added_tokens.h.
#include "coordinator/text/added_tokens.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/utf8.h"

namespace quire {
namespace {

std::uint64_t edge(int node, char byte) {
  return static_cast<std::uint64_t>(node) * 256 + static_cast<unsigned char>(byte);
}

// The last character before `end`, which is not 0.
char32_t char_before(absl::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return utf8::decode(text.substr(begin)).code;
}

bool is_space(char32_t c) {
  return u_isUWhiteSpace(static_cast<UChar32>(c)) != 0;
}

bool is_word(char32_t c) {
  const UChar32 code = static_cast<UChar32>(c);
  return u_isUAlphabetic(code) || u_charType(code) == U_DECIMAL_DIGIT_NUMBER ||
         (U_GET_GC_MASK(code) & (U_GC_M_MASK | U_GC_PC_MASK)) != 0;
}

bool touches_word(absl::string_view text, std::size_t begin, std::size_t end) {
  if (begin > 0 && is_word(char_before(text, begin))) return true;
  return end < text.size() && is_word(utf8::decode(text.substr(end)).code);
}

}  // namespace

absl::Status AddedTokens::add(AddedToken token) {
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the added token ", token.id, " has a text of ", token.content.size(),
                     " bytes; allowed are 1 to ", kMaxAddedTokenBytes));
  }
  first_bytes_[static_cast<unsigned char>(token.content[0])] = true;
  int node = 0;
  for (const char byte : token.content) {
    const auto [it, is_new] =
        edges_.try_emplace(edge(node, byte), static_cast<int>(token_of_node_.size()));
    if (is_new) token_of_node_.push_back(-1);
    node = it->second;
  }
  token_of_node_[static_cast<std::size_t>(node)] = static_cast<int>(tokens_.size());
  tokens_.push_back(std::move(token));
  return absl::OkStatus();
}

const AddedToken* AddedTokens::match_at(absl::string_view text, std::size_t begin,
                                        bool with_special) const {
  const AddedToken* best = nullptr;
  int node = 0;
  for (std::size_t i = begin; i < text.size(); ++i) {
    const auto next = edges_.find(edge(node, text[i]));
    if (next == edges_.end()) break;
    node = next->second;
    const int index = token_of_node_[static_cast<std::size_t>(node)];
    if (index < 0) continue;
    const AddedToken& token = tokens_[static_cast<std::size_t>(index)];
    if (token.special && !with_special) continue;
    if (token.single_word && touches_word(text, begin, i + 1)) continue;
    best = &token;
  }
  return best;
}

std::vector<AddedTokens::Part> AddedTokens::split(absl::string_view text, bool with_special) const {
  std::vector<Part> parts;
  std::size_t done = 0;  // everything before it is in `parts`
  for (std::size_t i = 0; i < text.size();) {
    const AddedToken* token = first_bytes_[static_cast<unsigned char>(text[i])]
                                  ? match_at(text, i, with_special)
                                  : nullptr;
    if (token == nullptr) {
      ++i;
      continue;
    }
    std::size_t begin = i;
    std::size_t end = i + token->content.size();
    if (token->lstrip) {
      while (begin > done && is_space(char_before(text, begin))) {
        do --begin;
        while (begin > done && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80);
      }
    }
    if (token->rstrip) {
      while (end < text.size()) {
        const utf8::Decoded next = utf8::decode(text.substr(end));
        if (!is_space(next.code)) break;
        end += static_cast<std::size_t>(std::max(next.size, 1));
      }
    }
    if (begin > done) parts.push_back({-1, text.substr(done, begin - done)});
    parts.push_back({token->id, text.substr(begin, end - begin)});
    done = i = end;
  }
  if (done < text.size()) parts.push_back({-1, text.substr(done)});
  return parts;
}

}  // namespace quire
