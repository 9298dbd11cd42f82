#include "tests/simulation/virtual_clients.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire::test {
namespace {

constexpr int kMostRefusals = 20;
constexpr int kMaxIdleLives = 5;  // the journal's: then a request counts as deadly

NewRequest wish_of(const Request& request, std::uint64_t number) {
  NewRequest wish;
  wish.id = number;
  wish.prompt = request.prompt;
  wish.params = request.params;
  wish.n = request.n;
  wish.beams = request.beams;
  return wish;
}

}  // namespace

template <typename... Words>
void VirtualClients::wrong(const Client& client, const Words&... words) {
  broken_(absl::InternalError(absl::StrCat("client ", client.number, ": ", words...)));
}

VirtualClients::VirtualClients(CoordinatorWorld* world, VirtualTime* time,
                               std::function<VirtualCoordinator*()> coordinator,
                               std::function<void(absl::Status)> broken)
    : world_(*world),
      time_(*time),
      coordinator_(std::move(coordinator)),
      broken_(std::move(broken)) {}

void VirtualClients::arrive() {
  const std::uint64_t number = clients_.size() + 1;
  Client& client = clients_[number];
  client.number = number;
  if (world_.chance(0.75)) client.call.name = absl::StrCat("call-", number);
  const int num_prompts = world_.chance(0.15) ? world_.pick(2, 3) : 1;
  for (int place = 0; place < num_prompts; ++place) {
    const std::uint64_t name = number * 4 + static_cast<std::uint64_t>(place);
    const Request& request = client.call.requests.emplace_back(
        place == 0 ? world_.request(name, time_.now())
                   : world_.request(name, time_.now(), client.call.requests[0].tenant));
    client.oracles.emplace_back(world_.base.model, world_.base.config, wish_of(request, name));
    client.call.had.resize(client.call.had.size() + static_cast<std::size_t>(request.n));
  }
  client.saved.resize(client.call.requests.size(), {-1, life_});
  client.losses_before = num_group_losses_;
  ++counts_.calls;
  plan_whims(client);
  dial(client);
}

// What it does of its own accord, some time.
void VirtualClients::plan_whims(Client& client) {
  if (client.call.name.empty()) return;
  const absl::Duration some_time = world_.about(absl::Seconds(2));
  if (world_.chance(0.1)) {
    later(client, some_time, [this](Client& me) {
      if (coordinator_() == nullptr || me.state != State::kConnected) return;
      if (!me.call.was_accepted) return;
      coordinator_()->cancel(me.call.name);
      drop(me);
      finish(me, &counts_.cancelled);
    });
  } else if (world_.chance(0.15)) {
    later(client, some_time, [this](Client& me) { stop_one(me); });
  }
}

// It has seen enough of a choice.
void VirtualClients::stop_one(Client& client) {
  if (coordinator_() == nullptr || client.state != State::kConnected) return;
  if (!client.call.was_accepted) return;
  const int place = world_.pick(0, static_cast<int>(client.oracles.size()) - 1);
  SimulationClient& oracle = client.oracles[static_cast<std::size_t>(place)];
  const int choice = world_.pick(0, oracle.wish().n - 1);
  if (oracle.is_beam() || !oracle.is_open(choice)) return;
  coordinator_()->stop_choice(client.call.name, place, choice);
  oracle.stop(choice);
  client.call.had[index_of(client, static_cast<std::size_t>(place), choice)].ended = true;
  ++counts_.stopped;
  if (!is_done(client)) return;
  drop(client);
  finish(client, &counts_.finished);
}

std::size_t VirtualClients::index_of(const Client& client, std::size_t place, int choice) {
  auto index = static_cast<std::size_t>(choice);
  for (std::size_t i = 0; i < place; ++i) {
    index += static_cast<std::size_t>(client.call.requests[i].n);
  }
  return index;
}

bool VirtualClients::is_done(const Client& client) {
  return std::all_of(client.oracles.begin(), client.oracles.end(),
                     [](const SimulationClient& oracle) { return oracle.done(); });
}

void VirtualClients::later(const Client& client, absl::Duration wait,
                           std::function<void(Client&)> what) {
  time_.after(wait, [this, number = client.number, what = std::move(what)] {
    Client& me = clients_.at(number);
    if (me.state != State::kDone) what(me);
  });
}

// Something that the server sends on a connection: in order, and lost if that breaks before.
void VirtualClients::hear(std::uint64_t number, std::uint64_t generation,
                          std::function<void(Client&)> what) {
  Client& client = clients_.at(number);
  if (client.generation != generation) return;
  client.arrives = std::max(client.arrives, time_.now()) + world_.about(world_.network_delay);
  later(client, client.arrives - time_.now(), [generation, what = std::move(what)](Client& me) {
    if (me.generation == generation) what(me);
  });
}

Connection VirtualClients::connection_of(const Client& client) {
  const std::uint64_t number = client.number, generation = client.generation;
  return {
      .accepted =
          [this, number, generation] {
            hear(number, generation, [this](Client& me) {
              if (!std::exchange(me.call.was_accepted, true)) ++counts_.accepted;
            });
          },
      .refused =
          [this, number, generation](absl::Status why) {
            hear(number, generation, [this, why](Client& me) { refused(me, why); });
          },
      .unknown = [this, number,
                  generation] { hear(number, generation, [this](Client& me) { unknown(me); }); },
      .delta =
          [this, number, generation](int place, OutputDelta delta) {
            hear(number, generation,
                 [this, place, delta = std::move(delta)](Client& me) { take(me, place, delta); });
          }};
}

void VirtualClients::dial(Client& client) {
  if (coordinator_() == nullptr) return come_back(client, absl::Milliseconds(400));
  client.state = State::kConnected;
  ++client.generation;
  if (client.call.was_accepted) ++counts_.resumed;
  later(client, world_.about(world_.network_delay),
        [this, generation = client.generation](Client& me) {
          if (me.generation != generation) return;
          if (coordinator_() == nullptr) return come_back(me, absl::Milliseconds(400));
          const Connection connection = connection_of(me);
          me.connection = coordinator_()->call(me.call, connection);
        });
}

void VirtualClients::come_back(Client& client, absl::Duration mean) {
  client.state = State::kAway;
  ++client.generation;
  client.connection = 0;
  later(client, world_.about(mean), [this](Client& me) {
    if (me.state == State::kAway) dial(me);
  });
}

// The server hears of it a little later.
void VirtualClients::drop(Client& client) {
  ++client.generation;
  const std::uint64_t connection = std::exchange(client.connection, 0);
  if (connection == 0) return;
  VirtualCoordinator* const server = coordinator_();
  time_.after(world_.about(world_.network_delay), [this, server, connection] {
    if (server != nullptr && coordinator_() == server) server->hang_up(connection);
  });
}

bool VirtualClients::break_one() {
  std::vector<std::uint64_t> connected;
  for (const auto& [number, client] : clients_) {
    if (client.state == State::kConnected) connected.push_back(number);
  }
  if (connected.empty()) return false;
  Client& client = clients_.at(
      connected[static_cast<std::size_t>(world_.pick(0, static_cast<int>(connected.size()) - 1))]);
  drop(client);
  if (client.call.name.empty()) {
    finish(client, &counts_.gone);
  } else {
    come_back(client, absl::Seconds(1));
  }
  return true;
}

void VirtualClients::on_coordinator_gone() {
  for (auto& [number, client] : clients_) {
    if (client.state != State::kConnected) continue;
    client.connection = 0;
    const auto broken = [this](Client& me) {
      // Only a name finds it again.
      if (me.call.name.empty() && me.call.was_accepted) return finish(me, &counts_.gone);
      come_back(me, absl::Milliseconds(400));
    };
    if (world_.chance(0.5)) {  // what was on its way still comes
      hear(number, client.generation, broken);
    } else {
      broken(client);
    }
  }
}

void VirtualClients::refused(Client& client, const absl::Status& why) {
  drop(client);
  switch (why.code()) {
    case absl::StatusCode::kResourceExhausted:  // limits of the queue and of tenants
      if (++client.num_refusals < kMostRefusals) return come_back(client, absl::Seconds(1));
      return finish(client, &counts_.refused);
    case absl::StatusCode::kDeadlineExceeded:
      return finish(client, &counts_.refused);
    case absl::StatusCode::kAborted:  // the journal
    case absl::StatusCode::kUnavailable:
      return come_back(client, absl::Seconds(1));
    case absl::StatusCode::kInvalidArgument:
      if (can_be_too_large(client)) return finish(client, &counts_.too_large);
      [[fallthrough]];
    default:
      wrong(client, "refused: ", why.ToString());
  }
}

bool VirtualClients::can_be_too_large(const Client& client) const {
  const int size = world_.base.config.block_size;
  return std::any_of(client.oracles.begin(), client.oracles.end(),
                     [&](const SimulationClient& oracle) {
                       const int width = oracle.wish().beams.width;
                       const int end = (oracle.max_total_tokens() - 2 + size) / size;
                       // A search may hold a block more for each beam, while it copies.
                       return (width > 0 ? width * (end + 1) : end) > world_.worker.num_blocks;
                     });
}

void VirtualClients::unknown(Client& client) {
  drop(client);
  if (client.is_kept && !client.is_deadly) {
    wrong(client, "it was accepted, and is not known any more");
  }
  finish(client, &counts_.unpromised);
}

void VirtualClients::take(Client& client, int at, OutputDelta delta) {
  const auto place = static_cast<std::size_t>(at);
  SimulationClient& oracle = client.oracles[place];
  EventId::Choice& had = client.call.had[index_of(client, place, delta.choice)];
  if (!client.call.was_accepted) return wrong(client, "tokens come before it is accepted");
  if (had.ended) return;  // it has stopped the choice, which the server does not know yet
  if (delta.num_cached_tokens >= oracle.num_prompt_tokens()) {
    return wrong(client, delta.num_cached_tokens, " tokens of its prompt are said to be cached");
  }
  Gain gain;
  gain.request = oracle.wish().id;
  gain.choice = delta.choice;
  gain.tokens.assign(delta.tokens.begin(), delta.tokens.end());
  gain.logprobs = std::move(delta.logprobs);
  if (delta.finish == FinishReason::kStop) gain.end = EndReason::kStop;
  if (delta.finish == FinishReason::kLength) gain.end = EndReason::kLength;
  if (!gain.tokens.empty() || gain.end != EndReason::kNone) {
    if (absl::Status right = oracle.take(gain, 0); !right.ok()) broken_(right);
    counts_.tokens += std::ssize(gain.tokens);
  }
  had.num_tokens += static_cast<int>(delta.tokens.size());
  had.ended = gain.end != EndReason::kNone;
  if (!had.ended && delta.finish != FinishReason::kNone) return take_end(client, place, delta);
  if (!is_done(client)) return;
  drop(client);
  finish(client, &counts_.finished);
}

// An end that the model has not asked for.
void VirtualClients::take_end(Client& client, std::size_t place, const OutputDelta& delta) {
  if (delta.finish == FinishReason::kCancelled) {  // the server stops
    drop(client);
    if (client.call.name.empty()) return finish(client, &counts_.gone);
    return come_back(client, absl::Seconds(1));
  }
  drop(client);
  if (delta.finish == FinishReason::kDeadline) {
    if (time_.now() < client.call.requests[place].deadline)
      wrong(client, "ended before its deadline");
    return finish(client, &counts_.expired);
  }
  if (delta.error_code == "request_quarantined" && num_group_losses_ - client.losses_before >= 3) {
    return finish(client, &counts_.quarantined);
  }
  if (can_be_too_large(client)) return finish(client, &counts_.too_large);
  if (!client.is_kept) return finish(client, &counts_.unpromised);
  wrong(client, "ended by an error: ", delta.error, " (", delta.error_code, ")");
}

void VirtualClients::finish(Client& client, std::int64_t* count) {
  client.state = State::kDone;
  ++client.generation;
  ++*count;
}

void VirtualClients::lose_protection() {
  for (auto& [number, client] : clients_) client.is_protected = client.is_kept = false;
}

void VirtualClients::lose_row(const FaultyDisk::Flipped& row) {
  for (auto& [number, client] : clients_) {
    if (row.table == "steps") client.is_protected = false;
    if (!client.call.name.empty() && row.answer.rfind(client.call.name + "#", 0) == 0) {
      client.is_protected = client.is_kept = false;
    }
  }
}

void VirtualClients::check_saved(const std::vector<SavedAnswer>& saved) {
  std::map<std::string, const SavedAnswer*> found;
  for (const SavedAnswer& answer : saved) {
    const SavedAnswer*& newest = found[answer.record->key];
    if (newest == nullptr ||
        newest->requests.front().request.id < answer.requests.front().request.id) {
      newest = &answer;
    }
  }
  for (auto& [number, client] : clients_) {
    if (client.state == State::kDone || client.call.name.empty()) continue;
    const auto one = found.find(client.call.name);
    note_life(client, one == found.end() ? SavedAnswer() : *one->second);
    if (one == found.end()) {
      if (client.call.was_accepted && client.is_kept && !client.is_deadly) {
        wrong(client, "it was accepted, but life ", life_, " does not find it in the file");
      }
      continue;
    }
    if (one->second->requests.size() != client.call.requests.size()) {
      wrong(client, "not all of its prompts are in the file");
      continue;
    }
    for (std::size_t place = 0; place < client.call.requests.size(); ++place) {
      const SavedRequest& request = one->second->requests[place];
      if (request.request.prompt != client.call.requests[place].prompt) {
        wrong(client, "its prompt is changed");
      }
      for (std::size_t i = 0; i < request.past.size(); ++i) {
        check_past(client, place, static_cast<int>(i), request.past[i]);
      }
    }
  }
}

// A request of which life after life ends without a token is dropped, and its answer with it.
void VirtualClients::note_life(Client& client, const SavedAnswer& answer) {
  for (std::size_t place = 0; place < client.saved.size(); ++place) {
    Client::Saved& known = client.saved[place];
    const bool is_there = place < answer.requests.size();
    if (!is_there && known.num_tokens < 0) continue;  // it never was in the file
    std::int64_t num_tokens = 0;
    if (is_there) {
      if (answer.requests[place].ended()) continue;
      for (const OutputDelta& past : answer.requests[place].past) {
        num_tokens += std::ssize(past.tokens);
      }
    }
    if (num_tokens > known.num_tokens)
      known = {num_tokens, known.num_tokens < 0 ? known.life : life_};
    client.is_deadly = client.is_deadly || life_ - known.life >= kMaxIdleLives;
  }
}

void VirtualClients::check_past(const Client& client, std::size_t place, int choice,
                                const OutputDelta& past) {
  const Request& request = client.call.requests[place];
  const EventId::Choice& had = client.call.had[index_of(client, place, choice)];
  const int length = static_cast<int>(past.tokens.size());
  if (length < had.num_tokens) {
    ++counts_.behind;
    if (client.is_protected) {
      wrong(client, "it has ", had.num_tokens, " tokens of prompt ", place, ", choice ", choice,
            ", but the file ", length);
    }
  }
  if (request.beams.width > 0) return;
  std::vector<TokenId> tokens = request.prompt;
  for (const TokenId token : past.tokens) {
    const TokenId right = world_.base.model.next(tokens, request.params.seed, choice);
    if (token != right) {
      return wrong(client, "the file has token ", token, " at position ", tokens.size(), ", not ",
                   right);
    }
    tokens.push_back(token);
  }
}

int VirtualClients::num_unfinished() const {
  return static_cast<int>(std::count_if(clients_.begin(), clients_.end(), [](const auto& entry) {
    return entry.second.state != State::kDone;
  }));
}

std::string VirtualClients::describe_unfinished() const {
  std::string text;
  for (const auto& [number, client] : clients_) {
    if (client.state == State::kDone) continue;
    absl::StrAppend(&text, " ", number, client.call.name.empty() ? "" : " (named)",
                    client.state == State::kAway ? " away" : "",
                    client.call.was_accepted ? " accepted" : "", " has");
    for (const EventId::Choice& had : client.call.had) {
      absl::StrAppend(&text, " ", had.num_tokens, had.ended ? "." : "");
    }
    text += ";";
  }
  return text;
}

}  // namespace quire::test
