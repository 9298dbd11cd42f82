// Sizes are small, so that limits are met all the time.
#include "tests/simulation/simulation_world.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::test {

SimulationWorld::SimulationWorld(std::uint64_t seed, int shortest) : random_(seed) {
  make_config(shortest);
}

int SimulationWorld::pick(int low, int high) {
  return low + static_cast<int>(random_() % static_cast<std::uint64_t>(high - low + 1));
}

bool SimulationWorld::chance(double p) {
  return static_cast<double>(random_() >> 11) * 0x1p-53 < p;
}

void SimulationWorld::make_config(int shortest) {
  config.max_num_seqs = pick(1, 12);
  config.max_num_batched_tokens = pick(1, 1 << pick(0, 9));
  config.steps_in_flight = pick(1, 3);  // the engine allows 2; the rules hold for any depth
  config.block_size = 1 << pick(0, 4);
  config.num_kv_groups = chance(0.2) ? 2 : 1;
  config.max_model_len = std::max(shortest, pick(2, 1 << pick(2, 7)));
  model.vocab = pick(4, 80);
  config.vocab = model.vocab;
  for (int i = pick(0, 2); i > 0; --i) config.eos.push_back(pick(0, model.vocab - 1));
  config.policy = static_cast<Policy>(pick(0, 4));
  config.priority_ageing = absl::Milliseconds(pick(1, 10000));
  config.long_prefill_token_threshold = chance(0.5) ? -1 : chance(0.3) ? 0 : pick(1, 40);
  config.tenant_weights.assign(static_cast<std::size_t>(pick(1, 3)), 1.0);
  for (double& weight : config.tenant_weights) weight = 0.5 * pick(1, 6);
  config.prefix_caching = chance(0.75);
  config.hash_key = random_();
  if (chance(0.5)) {
    config.num_speculative_tokens = pick(1, 6);
    config.prompt_lookup_min = pick(1, 3);
    config.prompt_lookup_max = config.prompt_lookup_min + pick(0, 3);
    model.period = pick(0, 5);
  }
  loss_rate = chance(0.5) ? 0.0 : 0.01;
  crash_rate = chance(0.5) ? 0.0 : 0.01;
  cancel_rate = chance(0.3) ? 0.0 : 0.03;
  arrival_rate = chance(0.5) ? 0.1 : 0.4;
  beam_rate = chance(0.5) ? 0.0 : 0.2;
  deadline_rate = chance(0.5) ? 0.0 : 0.2;
  offloads_ = chance(0.5);
  for (int i = pick(1, 4); i > 0; --i) {
    std::vector<TokenId>& text = texts_.emplace_back();
    text.resize(static_cast<std::size_t>(config.max_model_len));
    for (TokenId& token : text) token = pick(0, model.vocab - 1);
  }
}

std::uint64_t SimulationWorld::domain(const NewRequest& wish) {
  const int salt = wish.cache_salt.empty() ? 0 : wish.cache_salt.back() - '0';
  return static_cast<std::uint64_t>(1 + wish.tenant * 10 + salt);
}

HashWorkerConfig SimulationWorld::group(EpochId epoch) {
  const int longest = (config.max_model_len - 1 + config.block_size - 1) / config.block_size;
  const int least = config.num_kv_groups * longest;
  HashWorkerConfig worker;
  worker.epoch = epoch;
  worker.first_step = static_cast<StepId>(pick(1, 3));
  worker.num_blocks =
      chance(0.1) ? pick(1, least) : pick(least, chance(0.5) ? least + 2 : 6 * least);
  worker.num_host_blocks = offloads_ ? pick(1, 4 * worker.num_blocks) : 0;
  worker.block_size = config.block_size;
  worker.num_kv_groups = config.num_kv_groups;
  worker.max_num_seqs = config.max_num_seqs;
  worker.max_num_batched_tokens = config.max_num_batched_tokens;
  worker.model = model;
  worker.cost = {100.0 * pick(0, 50), 1.0 * pick(0, 100), 1.0 * pick(0, 20), 0.01 * pick(0, 50)};
  worker.seed_names_domain = true;
  return worker;
}

std::vector<TokenId> SimulationWorld::prompt(NewRequest* wish) {
  const int most = config.max_model_len - 1;
  std::vector<TokenId> tokens;
  if (!answers_.empty() && chance(0.2)) {
    const NewRequest& answer =
        answers_[static_cast<std::size_t>(pick(0, static_cast<int>(answers_.size()) - 1))];
    tokens = answer.prompt;
    if (chance(0.8)) {
      wish->tenant = answer.tenant;
      wish->cache_salt = answer.cache_salt;
    }
  } else if (chance(0.8)) {
    tokens = texts_[static_cast<std::size_t>(pick(0, static_cast<int>(texts_.size()) - 1))];
    tokens.resize(static_cast<std::size_t>(pick(0, chance(0.3) ? most : (most + 2) / 3)));
  }
  for (int i = pick(0, chance(0.2) ? most : (most + 2) / 4); i > 0; --i) {
    tokens.push_back(pick(0, model.vocab - 1));
  }
  if (tokens.empty()) tokens.push_back(0);
  if (static_cast<int>(tokens.size()) > most) tokens.resize(static_cast<std::size_t>(most));
  return tokens;
}

void SimulationWorld::ask_for_beams(NewRequest* wish) {
  wish->beams.width = pick(1, 8);
  wish->n = pick(1, wish->beams.width);
  wish->beams.length_penalty = 0.5 * pick(-2, 4);
  wish->beams.early_stopping = static_cast<BeamParams::EarlyStopping>(pick(0, 2));
}

NewRequest SimulationWorld::request(RequestId id, absl::Time now) {
  NewRequest wish;
  wish.id = id;
  wish.tenant = pick(0, static_cast<int>(config.tenant_weights.size()) - 1);
  if (chance(0.2)) wish.cache_salt = absl::StrCat("salt", pick(1, 2));
  wish.prompt = prompt(&wish);
  wish.params.seed = (domain(wish) << 32) | id;
  wish.params.max_tokens = chance(0.1) ? 1 << 30 : pick(1, config.max_model_len);
  wish.params.ignore_eos = chance(0.3);
  wish.params.logprobs = chance(0.2) ? pick(0, 3) : -1;
  if (chance(0.2)) wish.params.stop_token_ids = {pick(0, model.vocab - 1)};
  if (chance(beam_rate)) {
    ask_for_beams(&wish);
  } else if (chance(0.25)) {
    wish.n = pick(2, 8);
  }
  wish.priority = pick(-2, 2);
  wish.arrival = now;
  if (chance(deadline_rate)) wish.deadline = now + absl::Milliseconds(pick(0, 2000));
  return wish;
}

void SimulationWorld::remember(const NewRequest& wish, const std::vector<TokenId>& tokens) {
  constexpr std::size_t kMostAnswers = 8;
  if (static_cast<int>(tokens.size()) >= config.max_model_len - 1) return;
  NewRequest answer;
  answer.tenant = wish.tenant;
  answer.cache_salt = wish.cache_salt;
  answer.prompt = tokens;
  if (answers_.size() < kMostAnswers) {
    answers_.push_back(std::move(answer));
  } else {
    answers_[static_cast<std::size_t>(pick(0, static_cast<int>(kMostAnswers) - 1))] =
        std::move(answer);
  }
}

}  // namespace quire::test
