// Decoding is the trust boundary of the step loop: after it, every id is in a range that cannot
// overflow an index, and every list has the length its neighbour promises. Whether an id exists is
// for the room that owns it.
#include "common/wire.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/hash.h"
#include "common/status.h"
#include "fleet.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace quire::wire {
namespace {

// Far above anything a machine can hold, far below what would overflow an int.
constexpr int kMaxRanks = 1 << 16;
constexpr int kMaxSlots = 1 << 20;
constexpr int kMaxRows = 1 << 20;
constexpr int kMaxPosition = 1 << 30;
constexpr int kMaxBlock = 1 << 30;
constexpr int kMaxKvGroups = 64;

constexpr std::size_t kUsualRowBytes = 16;  // of a row in a plan, with its tag: a first guess

template <typename... Where>
absl::Status bad(const Where&... sentence) {
  return absl::InvalidArgumentError(absl::StrCat(sentence...));
}

// `value` in [low, high], else an error that names `where` ("StepPlan 7: rows[2].slot").
template <typename Name>
absl::Status in_range(std::int64_t value, std::int64_t low, std::int64_t high, const Name& where) {
  if (value >= low && value <= high) return absl::OkStatus();
  return bad(where(), " is ", value, ", but must be in [", low, ", ", high, "].");
}

absl::Status check_slots(const std::vector<SlotId>& slots, const std::string& plan,
                         const char* list) {
  std::vector<bool> seen;  // [slot], as long as the highest one so far
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const auto where = [&] { return absl::StrCat(plan, list, " entry ", i, ": the slot"); };
    QUIRE_RETURN_IF_ERROR(in_range(slots[i], 0, kMaxSlots - 1, where));
    const auto slot = static_cast<std::size_t>(slots[i]);
    if (slot >= seen.size()) seen.resize(slot + 1);
    if (seen[slot]) return bad(where(), " ", slots[i], " is named twice.");
    seen[slot] = true;
  }
  return absl::OkStatus();
}

void encode_sampling(const SamplingParams& params, v1::Sampling* out) {
  out->set_temperature(params.temperature);
  out->set_top_p(params.top_p);
  out->set_top_k(params.top_k);
  out->set_min_p(params.min_p);
  out->set_seed(params.seed);
  out->set_logprobs(params.logprobs);
  out->set_presence_penalty(params.presence_penalty);
  out->set_frequency_penalty(params.frequency_penalty);
  if (params.repetition_penalty != 1.0f) out->set_repetition_penalty(params.repetition_penalty);
  for (const LogitBias& bias : params.logit_bias) {
    out->add_biased_ids(bias.token);
    out->add_biases(bias.bias);
  }
  out->mutable_allowed_token_ids()->Add(params.allowed_token_ids.begin(),
                                        params.allowed_token_ids.end());
  out->set_beam_width(static_cast<std::uint32_t>(params.beam_width));
  if (params.min_tokens == 0) return;
  out->set_min_tokens(static_cast<std::uint32_t>(params.min_tokens));
  out->mutable_stop_token_ids()->Add(params.stop_token_ids.begin(), params.stop_token_ids.end());
  out->set_ignore_eos(params.ignore_eos);
}

void encode_admit(const AdmitRow& row, v1::AdmitRow* out) {
  out->set_slot(row.slot);
  out->mutable_tokens()->Add(row.tokens.begin(), row.tokens.end());
  out->set_num_prompt_tokens(static_cast<std::uint32_t>(row.num_prompt_tokens));
  out->set_sample_index(static_cast<std::uint32_t>(row.sample_index));
  if (row.fork_of >= 0) out->set_fork_of(row.fork_of);
  encode_sampling(row.params, out->mutable_sampling());
}

void encode_row(const PlanRow& row, v1::PlanRow* out) {
  out->set_slot(row.slot);
  out->set_first_position(row.first_position);
  out->set_num_tokens(row.num_tokens);
  out->set_samples(row.samples);
  for (const std::vector<BlockId>& blocks : row.new_blocks) {
    out->add_new_blocks()->mutable_blocks()->Add(blocks.begin(), blocks.end());
  }
  if (row.keep_blocks >= 0) out->set_keep_blocks(row.keep_blocks);
  if (!row.tokens.empty()) out->mutable_tokens()->Add(row.tokens.begin(), row.tokens.end());
  if (!row.drafts.empty()) out->mutable_drafts()->Add(row.drafts.begin(), row.drafts.end());
}

// Rows are many: each is written from the same message, as a whole plan's message would write it.
void append_rows(const std::vector<PlanRow>& rows, std::string* bytes) {
  constexpr std::uint32_t kTag = v1::StepPlan::kRowsFieldNumber << 3 | 2;  // 2: length, then bytes
  google::protobuf::io::StringOutputStream stream(bytes);
  google::protobuf::io::CodedOutputStream out(&stream);
  v1::PlanRow message;
  for (const PlanRow& row : rows) {
    message.Clear();
    encode_row(row, &message);
    out.WriteTag(kTag);
    out.WriteVarint32(static_cast<std::uint32_t>(message.ByteSizeLong()));
    message.SerializeWithCachedSizes(&out);
  }
}

void encode_swaps(const std::vector<BlockSwap>& swaps,
                  google::protobuf::RepeatedPtrField<v1::BlockSwap>* out) {
  for (const BlockSwap& swap : swaps) {
    v1::BlockSwap* to = out->Add();
    to->set_block(swap.block);
    to->set_host(swap.host);
  }
}

absl::Status decode_sampling(const v1::Sampling& in, const std::string& where,
                             SamplingParams* out) {
  out->temperature = in.temperature();
  out->top_p = in.top_p();
  out->top_k = in.top_k();
  out->min_p = in.min_p();
  out->seed = in.seed();
  out->logprobs = in.logprobs();
  out->presence_penalty = in.presence_penalty();
  out->frequency_penalty = in.frequency_penalty();
  if (in.has_repetition_penalty()) out->repetition_penalty = in.repetition_penalty();
  if (in.biased_ids_size() != in.biases_size()) {
    return bad(where, " has ", in.biased_ids_size(), " biased_ids but ", in.biases_size(),
               " biases.");
  }
  for (int i = 0; i < in.biases_size(); ++i) {
    out->logit_bias.push_back({in.biased_ids(i), in.biases(i)});
  }
  out->allowed_token_ids.assign(in.allowed_token_ids().begin(), in.allowed_token_ids().end());
  QUIRE_RETURN_IF_ERROR(in_range(in.min_tokens(), 0, kMaxPosition,
                                 [&] { return absl::StrCat(where, ".min_tokens"); }));
  out->min_tokens = static_cast<int>(in.min_tokens());
  out->stop_token_ids.assign(in.stop_token_ids().begin(), in.stop_token_ids().end());
  out->ignore_eos = in.ignore_eos();
  QUIRE_RETURN_IF_ERROR(in_range(in.beam_width(), 0, kMaxBeamWidth,
                                 [&] { return absl::StrCat(where, ".beam_width"); }));
  out->beam_width = static_cast<int>(in.beam_width());
  const absl::Status params = validate(*out, std::numeric_limits<int>::max());
  return params.ok() ? params : bad(where, ": ", params.message());
}

template <typename Name>
absl::Status decode_tokens(const google::protobuf::RepeatedField<std::int32_t>& in,
                           const Name& where, const char* field, std::vector<TokenId>* out) {
  out->assign(in.begin(), in.end());
  for (std::size_t i = 0; i < out->size(); ++i) {
    if ((*out)[i] >= 0) continue;
    return bad(where(), ".", field, "[", i, "] is ", (*out)[i], ", but ids are not negative.");
  }
  return absl::OkStatus();
}

absl::Status decode_admit(const v1::AdmitRow& in, const std::string& where, AdmitRow* out) {
  out->slot = in.slot();
  const auto name = [&] { return where; };
  QUIRE_RETURN_IF_ERROR(decode_tokens(in.tokens(), name, "tokens", &out->tokens));
  std::int64_t most_prompt_tokens = in.tokens_size();
  if (in.has_fork_of()) {
    QUIRE_RETURN_IF_ERROR(
        in_range(in.fork_of(), 0, kMaxSlots - 1, [&] { return absl::StrCat(where, ".fork_of"); }));
    if (!out->tokens.empty()) return bad(where, " has tokens, but a fork has those of its parent.");
    out->fork_of = in.fork_of();
    most_prompt_tokens = kMaxPosition;
  } else if (out->tokens.empty()) {
    return bad(where, ".tokens is empty, but a row has at least one token.");
  }
  QUIRE_RETURN_IF_ERROR(in_range(in.num_prompt_tokens(), 1, most_prompt_tokens,
                                 [&] { return absl::StrCat(where, ".num_prompt_tokens"); }));
  QUIRE_RETURN_IF_ERROR(in_range(in.sample_index(), 0, kMaxChoices - 1,
                                 [&] { return absl::StrCat(where, ".sample_index"); }));
  out->num_prompt_tokens = static_cast<int>(in.num_prompt_tokens());
  out->sample_index = static_cast<int>(in.sample_index());
  if (!in.has_sampling()) return bad(where, ".sampling is missing.");
  return decode_sampling(in.sampling(), absl::StrCat(where, ".sampling"), &out->params);
}

// Rows are many: their names (`where`, called) are only made for what is wrong.
template <typename Name>
absl::Status decode_row(const v1::PlanRow& in, const Name& where, PlanRow* out) {
  QUIRE_RETURN_IF_ERROR(in_range(in.first_position(), 0, kMaxPosition,
                                 [&] { return absl::StrCat(where(), ".first_position"); }));
  QUIRE_RETURN_IF_ERROR(in_range(in.num_tokens(), 0, kMaxPosition - in.first_position(),
                                 [&] { return absl::StrCat(where(), ".num_tokens"); }));
  QUIRE_RETURN_IF_ERROR(in_range(in.new_blocks_size(), 0, kMaxKvGroups, [&] {
    return absl::StrCat(where(), ": the number of KV groups");
  }));
  out->slot = in.slot();
  out->first_position = in.first_position();
  out->num_tokens = in.num_tokens();
  out->samples = in.samples();
  for (const v1::BlockList& list : in.new_blocks()) {
    for (int i = 0; i < list.blocks_size(); ++i) {
      QUIRE_RETURN_IF_ERROR(in_range(list.blocks(i), 0, kMaxBlock, [&] {
        return absl::StrCat(where(), ".new_blocks[", out->new_blocks.size(), "][", i, "]");
      }));
    }
    out->new_blocks.emplace_back(list.blocks().begin(), list.blocks().end());
  }
  if (in.has_keep_blocks()) {
    QUIRE_RETURN_IF_ERROR(in_range(in.keep_blocks(), 0, kMaxBlock,
                                   [&] { return absl::StrCat(where(), ".keep_blocks"); }));
    out->keep_blocks = in.keep_blocks();
  }
  QUIRE_RETURN_IF_ERROR(decode_tokens(in.tokens(), where, "tokens", &out->tokens));
  return decode_tokens(in.drafts(), where, "drafts", &out->drafts);
}

// Saves, or loads: neither has an order in itself, so no target is written twice.
absl::Status decode_swaps(const google::protobuf::RepeatedPtrField<v1::BlockSwap>& in,
                          const std::string& plan, const char* list, bool to_host,
                          std::vector<BlockSwap>* out) {
  absl::flat_hash_set<std::int32_t> written;
  for (const v1::BlockSwap& swap : in) {
    const auto where = [&] { return absl::StrCat(plan, list, "[", out->size(), "]"); };
    QUIRE_RETURN_IF_ERROR(in_range(swap.block(), 0, kMaxBlock, where));
    QUIRE_RETURN_IF_ERROR(in_range(swap.host(), 0, kMaxBlock, where));
    if (!written.insert(to_host ? swap.host() : swap.block()).second) {
      return bad(where(), ": its target is written twice.");
    }
    out->push_back({swap.block(), swap.host()});
  }
  return absl::OkStatus();
}

template <typename Name>
absl::Status decode_result_row(const v1::RowResult& in, const Name& where, RowResult* out) {
  out->row = in.row();
  out->token = in.token();
  out->no_number = in.no_number();
  if (in.token() < 0) return bad(where(), ".token is ", in.token(), ", but ids are not negative.");
  if (in.logprob_tokens_size() != in.logprobs_size()) {
    return bad(where(), " has ", in.logprob_tokens_size(), " logprob_tokens but ",
               in.logprobs_size(), " logprobs.");
  }
  if (in.logprobs_size() > kMaxRowLogprobs + 1) {
    return bad(where(), " has ", in.logprobs_size(), " logprobs, but at most ", kMaxRowLogprobs + 1,
               " are possible.");
  }
  for (int i = 0; i < in.logprobs_size(); ++i) {
    if (in.logprob_tokens(i) < 0 || std::isnan(in.logprobs(i))) {
      return bad(where(), ".logprobs[", i, "] is ", in.logprobs(i), " for token ",
                 in.logprob_tokens(i), ", but must be a number for an id that is not negative.");
    }
    out->logprobs.push_back({in.logprob_tokens(i), in.logprobs(i)});
  }
  return absl::OkStatus();
}

// Copies have no order among themselves: no block is written twice, or read and written.
absl::Status decode_copies(const v1::StepPlan& in, const std::string& plan,
                           std::vector<BlockCopy>* copies) {
  absl::flat_hash_set<std::pair<int, BlockId>> read, written;
  for (const v1::BlockCopy& copy : in.copies()) {
    const auto where = [&] { return absl::StrCat(plan, "copies[", copies->size(), "]"); };
    QUIRE_RETURN_IF_ERROR(in_range(copy.kv_group(), 0, kMaxKvGroups - 1, where));
    QUIRE_RETURN_IF_ERROR(in_range(copy.from(), 0, kMaxBlock, where));
    QUIRE_RETURN_IF_ERROR(in_range(copy.to(), 0, kMaxBlock, where));
    const BlockCopy& taken =
        copies->emplace_back(BlockCopy{static_cast<int>(copy.kv_group()), copy.from(), copy.to()});
    read.insert({taken.kv_group, taken.from});
    if (!written.insert({taken.kv_group, taken.to}).second) {
      return bad(plan, "copies: block ", taken.to, " is written twice.");
    }
  }
  for (const auto& [group, block] : read) {
    if (written.contains({group, block})) {
      return bad(plan, "copies: block ", block, " is read and written.");
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string encode(const StepPlan& plan) {
  v1::StepPlan out;
  out.set_epoch(plan.epoch);
  out.set_step(plan.step);
  out.set_sampling_rank(static_cast<std::uint32_t>(plan.sampling_rank));
  out.mutable_releases()->Add(plan.releases.begin(), plan.releases.end());
  for (const AdmitRow& row : plan.admits) encode_admit(row, out.add_admits());
  for (const BlockCopy& copy : plan.copies) {
    v1::BlockCopy* to = out.add_copies();
    to->set_kv_group(static_cast<std::uint32_t>(copy.kv_group));
    to->set_from(copy.from);
    to->set_to(copy.to);
  }
  encode_swaps(plan.saves, out.mutable_saves());
  encode_swaps(plan.loads, out.mutable_loads());
  std::string bytes;
  bytes.reserve(out.ByteSizeLong() + plan.rows.size() * kUsualRowBytes);
  out.AppendToString(&bytes);
  append_rows(plan.rows, &bytes);
  return bytes;
}

absl::StatusOr<StepPlan> decode_plan(absl::string_view bytes) {
  v1::StepPlan in;
  if (bytes.size() > std::numeric_limits<int>::max() ||
      !in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return bad("The ", bytes.size(), " bytes received as a plan are not a StepPlan message.");
  }
  const std::string name = absl::StrCat("StepPlan ", in.step(), ": ");
  QUIRE_RETURN_IF_ERROR(in_range(in.sampling_rank(), 0, kMaxRanks - 1,
                                 [&] { return absl::StrCat(name, "sampling_rank"); }));
  for (const int count : {in.releases_size(), in.admits_size(), in.rows_size(), in.copies_size(),
                          in.saves_size(), in.loads_size()}) {
    QUIRE_RETURN_IF_ERROR(
        in_range(count, 0, kMaxRows, [&] { return absl::StrCat(name, "the length of a list"); }));
  }
  StepPlan plan;
  plan.epoch = in.epoch();
  plan.step = in.step();
  plan.sampling_rank = static_cast<int>(in.sampling_rank());
  plan.releases.assign(in.releases().begin(), in.releases().end());
  QUIRE_RETURN_IF_ERROR(check_slots(plan.releases, name, "releases"));

  std::vector<SlotId> slots;
  for (const v1::AdmitRow& row : in.admits()) {
    const std::string where = absl::StrCat(name, "admits[", plan.admits.size(), "]");
    QUIRE_RETURN_IF_ERROR(decode_admit(row, where, &plan.admits.emplace_back()));
    slots.push_back(row.slot());
  }
  QUIRE_RETURN_IF_ERROR(check_slots(slots, name, "admits"));

  QUIRE_RETURN_IF_ERROR(decode_swaps(in.saves(), name, "saves", true, &plan.saves));
  QUIRE_RETURN_IF_ERROR(decode_swaps(in.loads(), name, "loads", false, &plan.loads));
  QUIRE_RETURN_IF_ERROR(decode_copies(in, name, &plan.copies));
  slots.clear();
  slots.reserve(static_cast<std::size_t>(in.rows_size()));
  plan.rows.reserve(static_cast<std::size_t>(in.rows_size()));
  for (const v1::PlanRow& row : in.rows()) {
    const auto where = [&, i = plan.rows.size()] { return absl::StrCat(name, "rows[", i, "]"); };
    QUIRE_RETURN_IF_ERROR(decode_row(row, where, &plan.rows.emplace_back()));
    slots.push_back(row.slot());
  }
  QUIRE_RETURN_IF_ERROR(check_slots(slots, name, "rows"));
  return plan;
}

void encode(const StepResult& result, v1::StepResult* out) {
  out->Clear();
  out->set_epoch(result.epoch);
  out->set_step(result.step);
  out->set_busy_us(result.busy_us);
  for (const RowResult& row : result.rows) {
    v1::RowResult* to = out->add_rows();
    to->set_row(row.row);
    to->set_token(row.token);
    to->set_no_number(row.no_number);
    for (const TokenLogprob& logprob : row.logprobs) {
      to->add_logprob_tokens(logprob.token);
      to->add_logprobs(logprob.logprob);
    }
  }
}

absl::StatusOr<StepResult> decode(const v1::StepResult& in) {
  const std::string name = absl::StrCat("StepResult ", in.step(), ": ");
  QUIRE_RETURN_IF_ERROR(in_range(in.busy_us(), 0, std::numeric_limits<std::int64_t>::max(),
                                 [&] { return absl::StrCat(name, "busy_us"); }));
  StepResult result;
  result.epoch = in.epoch();
  result.step = in.step();
  result.busy_us = in.busy_us();
  result.rows.reserve(static_cast<std::size_t>(in.rows_size()));
  for (const v1::RowResult& row : in.rows()) {
    const auto where = [&, i = result.rows.size()] { return absl::StrCat(name, "rows[", i, "]"); };
    // Plan order; a row with drafts has several picks.
    const int lowest = result.rows.empty() ? 0 : result.rows.back().row;
    QUIRE_RETURN_IF_ERROR(
        in_range(row.row(), lowest, kMaxRows, [&] { return absl::StrCat(where(), ".row"); }));
    QUIRE_RETURN_IF_ERROR(decode_result_row(row, where, &result.rows.emplace_back()));
  }
  return result;
}

std::uint64_t plan_digest(std::uint64_t previous, absl::string_view bytes) {
  return hash64(previous, bytes);
}

}  // namespace quire::wire
