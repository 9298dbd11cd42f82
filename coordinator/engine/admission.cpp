// The checks of admission.h. Sums are taken in 64 bits: max_tokens may be any positive int.
#include "coordinator/engine/admission.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "coordinator/schedule/policy.h"

namespace quire {
namespace {

absl::Status check_prompt(const std::vector<TokenId>& prompt, const RequestLimits& limits) {
  if (prompt.empty()) {
    return absl::InvalidArgumentError("The prompt is empty, but must have at least one token.");
  }
  const auto length = static_cast<std::int64_t>(prompt.size());
  if (length + 1 > limits.max_model_len) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The prompt has ", length, " tokens, but the context is ", limits.max_model_len,
        " tokens, of which one must be left for the answer: shorten the prompt to at most ",
        limits.max_model_len - 1, " tokens."));
  }
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || prompt[i] >= limits.vocab) {
      return absl::InvalidArgumentError(absl::StrCat("Token ", i, " of the prompt is ", prompt[i],
                                                     ", but must be in [0, ", limits.vocab - 1,
                                                     "], the ids of this model's vocabulary."));
    }
  }
  return absl::OkStatus();
}

// Blocks at the end. Choices can wait for each other, so one must fit; beams run together.
int blocks_needed(const Request& request, std::int64_t total, int block_size) {
  if (request.beams.width == 0) {
    return policy::blocks_at_end(static_cast<int>(total), block_size);
  }
  return policy::beam_blocks_at_end(static_cast<int>(request.prompt.size()),
                                    static_cast<int>(total), request.beams.width, block_size);
}

absl::Status check_length(const Request& request, const RequestLimits& limits) {
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t max_tokens = request.params.max_tokens;
  const std::int64_t total = prompt + max_tokens;
  if (total > limits.max_model_len) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The prompt's ", prompt, " tokens and `max_tokens` ", max_tokens, " make ", total,
        ", but the context is ", limits.max_model_len, " tokens: lower `max_tokens` to at most ",
        limits.max_model_len - prompt, " or shorten the prompt."));
  }
  const int needed = blocks_needed(request, total, limits.block_size);
  if (limits.total_blocks > 0 && needed > limits.total_blocks) {
    const int width = request.beams.width;
    return absl::InvalidArgumentError(absl::StrCat(
        "The request can grow to ", width > 0 ? absl::StrCat(width, " beams of ") : "", total,
        " tokens (", needed, " blocks of the KV cache), but the cache has only ",
        limits.total_blocks, " blocks of ", limits.block_size, " tokens: lower `max_tokens`",
        width > 0 ? " or the number of beams" : "",
        ", shorten the prompt, or start the server with a larger --kv-cache-memory-bytes."));
  }
  return absl::OkStatus();
}

absl::Status check_beams(const Request& request, const RequestLimits& limits) {
  const int width = request.beams.width;
  if (width == 0) return absl::OkStatus();
  if (width < request.n || width > kMaxBeamWidth) {
    return absl::InvalidArgumentError(
        absl::StrCat("The beam search has ", width, " beams for ", request.n,
                     " choices, but must have as many at least, and at most ", kMaxBeamWidth, "."));
  }
  if (width > limits.max_num_seqs) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The beam search has ", width, " beams, which run together, but the server runs at most ",
        limits.max_num_seqs,
        " sequences (--max-num-seqs, --max-num-batched-tokens): ask for fewer beams."));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status check_request(const Request& request, const RequestLimits& limits) {
  QUIRE_RETURN_IF_ERROR(validate(request.params, limits.vocab));
  if (request.n < 1 || request.n > kMaxChoices) {
    return absl::InvalidArgumentError(
        absl::StrCat("`n` is ", request.n, ", but must be in [1, ", kMaxChoices, "]."));
  }
  QUIRE_CHECK(request.tenant >= 0 && request.tenant < limits.num_tenants);
  QUIRE_RETURN_IF_ERROR(check_beams(request, limits));
  QUIRE_RETURN_IF_ERROR(check_prompt(request.prompt, limits));
  return check_length(request, limits);
}

}  // namespace quire
