#include "coordinator/journal/records.h"

#include <limits>
#include <utility>

#include "common/status.h"
#include "journal.pb.h"

namespace quire::records {
namespace {

absl::Status broken(const char* what) {
  return absl::DataLossError(what);
}

void encode_sampling(const SamplingParams& params, v1::JournalSampling* out) {
  out->set_temperature(params.temperature);
  out->set_top_p(params.top_p);
  out->set_top_k(params.top_k);
  out->set_min_p(params.min_p);
  out->set_seed(params.seed);
  out->set_max_tokens(params.max_tokens);
  out->set_ignore_eos(params.ignore_eos);
  out->set_logprobs(params.logprobs);
  out->mutable_stop_token_ids()->Add(params.stop_token_ids.begin(), params.stop_token_ids.end());
  out->set_presence_penalty(params.presence_penalty);
  out->set_frequency_penalty(params.frequency_penalty);
  out->set_repetition_penalty(params.repetition_penalty);
  out->set_min_tokens(params.min_tokens);
  for (const LogitBias& bias : params.logit_bias) {
    out->add_biased_ids(bias.token);
    out->add_biases(bias.bias);
  }
  out->mutable_allowed_token_ids()->Add(params.allowed_token_ids.begin(),
                                        params.allowed_token_ids.end());
}

absl::Status decode_sampling(const v1::JournalSampling& in, SamplingParams* out) {
  out->temperature = in.temperature();
  out->top_p = in.top_p();
  out->top_k = in.top_k();
  out->min_p = in.min_p();
  out->seed = in.seed();
  out->max_tokens = in.max_tokens();
  out->ignore_eos = in.ignore_eos();
  out->logprobs = in.logprobs();
  out->stop_token_ids.assign(in.stop_token_ids().begin(), in.stop_token_ids().end());
  out->presence_penalty = in.presence_penalty();
  out->frequency_penalty = in.frequency_penalty();
  out->repetition_penalty = in.repetition_penalty();
  out->min_tokens = in.min_tokens();
  if (in.biased_ids_size() != in.biases_size()) return broken("a bias is missing");
  for (int i = 0; i < in.biases_size(); ++i) {
    out->logit_bias.push_back({in.biased_ids(i), in.biases(i)});
  }
  out->allowed_token_ids.assign(in.allowed_token_ids().begin(), in.allowed_token_ids().end());
  return absl::OkStatus();
}

void encode_delta(const OutputDelta& delta, v1::JournalDelta* out) {
  out->set_request(delta.request);
  out->set_choice(static_cast<std::uint32_t>(delta.choice));
  out->set_num_cached_tokens(static_cast<std::uint32_t>(delta.num_cached_tokens));
  out->mutable_tokens()->Add(delta.tokens.begin(), delta.tokens.end());
  for (const std::vector<TokenLogprob>& of_token : delta.logprobs) {
    out->add_num_logprobs(static_cast<std::uint32_t>(of_token.size()));
    for (const TokenLogprob& entry : of_token) {
      out->add_logprob_tokens(entry.token);
      out->add_logprobs(entry.logprob);
    }
  }
  out->set_finish(static_cast<std::uint32_t>(delta.finish));
  if (delta.stop_token >= 0) out->set_stop_token(delta.stop_token);
  out->set_error(delta.error);
  out->set_error_code(delta.error_code);
}

absl::StatusOr<OutputDelta> decode_delta(const v1::JournalDelta& in) {
  OutputDelta out;
  out.request = in.request();
  if (in.choice() >= static_cast<std::uint32_t>(kMaxChoices)) return broken("no such choice");
  out.choice = static_cast<int>(in.choice());
  if (in.num_cached_tokens() > static_cast<std::uint32_t>(std::numeric_limits<int>::max())) {
    return broken("too many cached tokens");
  }
  out.num_cached_tokens = static_cast<int>(in.num_cached_tokens());
  out.tokens.assign(in.tokens().begin(), in.tokens().end());
  if (in.logprob_tokens_size() != in.logprobs_size()) return broken("a logprob is missing");
  if (in.num_logprobs_size() != 0 && in.num_logprobs_size() != in.tokens_size()) {
    return broken("logprobs and tokens differ in number");
  }
  int next = 0;
  for (const std::uint32_t count : in.num_logprobs()) {
    if (count > static_cast<std::uint32_t>(in.logprobs_size() - next)) {
      return broken("a logprob is missing");
    }
    std::vector<TokenLogprob>& of_token = out.logprobs.emplace_back();
    for (std::uint32_t i = 0; i < count; ++i, ++next) {
      of_token.push_back({in.logprob_tokens(next), in.logprobs(next)});
    }
  }
  if (in.finish() > static_cast<std::uint32_t>(FinishReason::kError)) {
    return broken("an unknown finish reason");
  }
  out.finish = static_cast<FinishReason>(in.finish());
  if (in.has_stop_token()) out.stop_token = in.stop_token();
  out.error = in.error();
  out.error_code = in.error_code();
  return out;
}

template <typename Message>
absl::Status parse(absl::string_view bytes, Message* out) {
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()) ||
      !out->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return broken("it is no record");
  }
  return absl::OkStatus();
}

}  // namespace

std::string encode(const AnswerRecord& answer) {
  v1::JournalAnswer out;
  out.set_name(answer.name);
  out.set_endpoint(answer.endpoint);
  out.set_body(answer.body);
  out.set_key(answer.key);
  out.set_tenant(answer.tenant);
  out.set_created(answer.created);
  out.set_num_prompts(static_cast<std::uint32_t>(answer.num_prompts));
  return out.SerializeAsString();
}

absl::StatusOr<AnswerRecord> decode_answer(absl::string_view bytes) {
  v1::JournalAnswer in;
  QUIRE_RETURN_IF_ERROR(parse(bytes, &in));
  constexpr std::uint32_t kMostPrompts = 1 << 20;
  if (in.num_prompts() == 0 || in.num_prompts() > kMostPrompts) return broken("no prompts");
  return AnswerRecord{in.name(),
                      in.endpoint(),
                      in.body(),
                      in.key(),
                      in.tenant(),
                      in.created(),
                      static_cast<int>(in.num_prompts())};
}

std::string encode(const Request& request, std::uint64_t model_hash) {
  v1::JournalRequest out;
  out.set_answer(request.answer->name);
  out.set_tenant(request.answer->tenant);
  out.set_place(static_cast<std::uint32_t>(request.place));
  out.set_model_hash(model_hash);
  out.mutable_prompt()->Add(request.prompt.begin(), request.prompt.end());
  encode_sampling(request.params, out.mutable_sampling());
  out.set_n(static_cast<std::uint32_t>(request.n));
  out.set_beam_width(static_cast<std::uint32_t>(request.beams.width));
  out.set_length_penalty(request.beams.length_penalty);
  out.set_early_stopping(static_cast<std::uint32_t>(request.beams.early_stopping));
  out.set_priority(request.priority);
  out.set_cache_salt(request.cache_salt);
  out.set_arrival_us(absl::ToUnixMicros(request.arrival));
  if (request.deadline != absl::InfiniteFuture()) {
    out.set_deadline_us(absl::ToUnixMicros(request.deadline));
  }
  return out.SerializeAsString();
}

absl::StatusOr<StoredRequest> decode_request(absl::string_view bytes) {
  v1::JournalRequest in;
  QUIRE_RETURN_IF_ERROR(parse(bytes, &in));
  StoredRequest out;
  out.answer = in.answer();
  out.tenant = in.tenant();
  out.model_hash = in.model_hash();
  Request& request = out.request;
  request.place = static_cast<int>(in.place() & 0x7fffffff);
  request.prompt.assign(in.prompt().begin(), in.prompt().end());
  QUIRE_RETURN_IF_ERROR(decode_sampling(in.sampling(), &request.params));
  if (in.n() < 1 || in.n() > static_cast<std::uint32_t>(kMaxChoices) ||
      in.beam_width() > static_cast<std::uint32_t>(kMaxBeamWidth) ||
      in.early_stopping() > static_cast<std::uint32_t>(BeamParams::EarlyStopping::kNever)) {
    return broken("its choices are out of range");
  }
  request.n = static_cast<int>(in.n());
  request.beams.width = static_cast<int>(in.beam_width());
  request.beams.length_penalty = in.length_penalty();
  request.beams.early_stopping = static_cast<BeamParams::EarlyStopping>(in.early_stopping());
  request.priority = in.priority();
  request.cache_salt = in.cache_salt();
  request.arrival = absl::FromUnixMicros(in.arrival_us());
  if (in.has_deadline_us()) request.deadline = absl::FromUnixMicros(in.deadline_us());
  return out;
}

std::string encode(const std::vector<OutputDelta>& deltas) {
  v1::JournalDeltas out;
  for (const OutputDelta& delta : deltas) encode_delta(delta, out.add_deltas());
  return out.SerializeAsString();
}

absl::StatusOr<std::vector<OutputDelta>> decode_deltas(absl::string_view bytes) {
  v1::JournalDeltas in;
  QUIRE_RETURN_IF_ERROR(parse(bytes, &in));
  std::vector<OutputDelta> out;
  for (const v1::JournalDelta& delta : in.deltas()) {
    QUIRE_ASSIGN_OR_RETURN(out.emplace_back(), decode_delta(delta));
  }
  return out;
}

}  // namespace quire::records
