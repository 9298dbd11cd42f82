// The blobs of the journal's tables. The first byte chooses: a call, a request, what choices
// gained. What is read can be written again and read as the same.
#include "coordinator/journal/records.h"
#include "tests/fuzz/fuzz.h"

namespace quire::fuzz {
namespace {

void take_answer(absl::string_view bytes) {
  const auto answer = records::decode_answer(bytes);
  if (!answer.ok()) return;
  const std::string encoded = records::encode(*answer);
  const auto again = records::decode_answer(encoded);
  QUIRE_CHECK(again.ok());
  QUIRE_CHECK_EQ(records::encode(*again), encoded);
}

void take_request(absl::string_view bytes) {
  auto stored = records::decode_request(bytes);
  if (!stored.ok()) return;
  AnswerRecord answer;
  answer.name = stored->answer;
  answer.tenant = stored->tenant;
  stored->request.answer = std::make_shared<AnswerRecord>(answer);
  const std::string encoded = records::encode(stored->request, stored->model_hash);
  auto again = records::decode_request(encoded);
  QUIRE_CHECK(again.ok());
  again->request.answer = stored->request.answer;
  QUIRE_CHECK_EQ(records::encode(again->request, again->model_hash), encoded);
}

void take_deltas(absl::string_view bytes) {
  const auto deltas = records::decode_deltas(bytes);
  if (!deltas.ok()) return;
  for (const OutputDelta& delta : *deltas) {
    QUIRE_CHECK(delta.logprobs.empty() || delta.logprobs.size() == delta.tokens.size());
  }
  const std::string encoded = records::encode(*deltas);
  const auto again = records::decode_deltas(encoded);
  QUIRE_CHECK(again.ok());
  QUIRE_CHECK_EQ(records::encode(*again), encoded);
}

}  // namespace
}  // namespace quire::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quire;
  if (size == 0) return 0;
  const absl::string_view bytes = fuzz::view(data + 1, size - 1);
  if (data[0] % 3 == 0) {
    fuzz::take_answer(bytes);
  } else if (data[0] % 3 == 1) {
    fuzz::take_request(bytes);
  } else {
    fuzz::take_deltas(bytes);
  }
  return 0;
}
