// Text <-> token ids. Built from a GGUF vocabulary (BPE or SentencePiece-style) or a Hugging Face
// tokenizer.json; immutable and thread-safe. What a tokenizer.json asks for that is not built here
// is refused by name when it is loaded.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "common/model_file/model_file.h"

namespace quire {

class Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> make(const TokenizerData& data);
  virtual ~Tokenizer() = default;

  // `text` must be valid UTF-8 (InvalidArgument with the byte offset otherwise). With
  // parse_special, texts of special tokens become those tokens; without, they are plain text. Adds
  // bos/eos only if `add_special` and the model asks for them.
  virtual absl::StatusOr<std::vector<TokenId>> encode(absl::string_view text, bool parse_special,
                                                      bool add_special) const = 0;
  // The bytes a token stands for, before any cleaning; may be a part of a UTF-8 character.
  virtual absl::string_view bytes_of(TokenId id) const = 0;
  // The token's name as stored ("<|im_end|>", "Ġthe"), for logprobs of special tokens.
  virtual absl::string_view name_of(TokenId id) const = 0;
  virtual bool is_special(TokenId id) const = 0;
  virtual int vocab_size() const = 0;
  // SentencePiece style: the very first piece loses its leading space when decoded.
  virtual bool strips_leading_space() const = 0;
  // Without it ids stand for nothing: encode() refuses and every text is empty.
  virtual bool has_text() const { return true; }

  std::string decode(absl::Span<const TokenId> ids, bool skip_special) const;
};

// Ids [0, vocab) without texts.
std::unique_ptr<Tokenizer> make_id_tokenizer(int vocab);

}  // namespace quire
