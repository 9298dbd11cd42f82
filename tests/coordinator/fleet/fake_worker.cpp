// The scripted rank; see fake_worker.h.
#include "tests/coordinator/fleet/fake_worker.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "common/wire.h"

namespace quire::test {

void FakeMeeting::arrive(int rank, StepId step) {
  absl::MutexLock lock(&mutex_);
  reached_[static_cast<std::size_t>(rank)] = step;
  const auto all_here = [&] {
    return std::all_of(reached_.begin(), reached_.end(), [step](StepId at) { return at >= step; });
  };
  mutex_.AwaitWithTimeout(absl::Condition(&all_here), absl::Seconds(30));
}

void FakeMeeting::leave(int rank) {
  absl::MutexLock lock(&mutex_);
  reached_[static_cast<std::size_t>(rank)] = std::numeric_limits<StepId>::max();
}

FakeWorker::FakeWorker(const std::string& address, int rank, int world, const std::string& instance,
                       FakeWorkerScript script, const std::function<void(v1::Hello&)>& spoil,
                       std::shared_ptr<FakeMeeting> meeting)
    : rank_(rank), script_(std::move(script)), meeting_(std::move(meeting)) {
  hello_.set_protocol(wire::kProtocolVersion);
  hello_.set_instance_id(instance);
  hello_.set_rank(static_cast<std::uint32_t>(rank));
  hello_.set_world(static_cast<std::uint32_t>(world));
  hello_.set_host("host0");
  hello_.set_pid(static_cast<std::uint64_t>(getpid()));
  hello_.set_build(kBuild);
  hello_.set_model_hash(kModelHash);
  hello_.set_numerics_id("hash");
  hello_.set_layout_digest("layout");
  hello_.set_kv_capacity_blocks(static_cast<std::uint64_t>(script_.num_blocks));
  hello_.add_kv_groups()->set_num_layers(1);
  hello_.set_collective(script_.collective);
  hello_.set_host_blocks(script_.host_blocks);
  hello_.set_saved_prefixes(script_.saved_prefixes);
  if (spoil) spoil(hello_);
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  channel_ = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
  stub_ = v1::Fleet::NewStub(channel_);
  thread_ = std::thread([this] { run(); });
}

FakeWorker::~FakeWorker() {
  kill();
  thread_.join();
}

grpc::Status FakeWorker::wait() {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&done_), absl::Seconds(30));
  if (!done_) return grpc::Status(grpc::StatusCode::UNKNOWN, "the stream has not ended");
  return status_;
}

std::string FakeWorker::refusal() const {
  absl::MutexLock lock(&mutex_);
  return refusal_;
}

bool FakeWorker::drained() const {
  absl::MutexLock lock(&mutex_);
  return drained_;
}

std::string FakeWorker::broken() const {
  absl::MutexLock lock(&mutex_);
  return broken_;
}

std::string FakeWorker::collective_id() const {
  absl::MutexLock lock(&mutex_);
  return collective_id_;
}

v1::Welcome FakeWorker::welcome() const {
  absl::MutexLock lock(&mutex_);
  return welcome_;
}

std::uint64_t FakeWorker::sealed() const {
  absl::MutexLock lock(&mutex_);
  return sealed_;
}

StepId FakeWorker::last_step() const {
  absl::MutexLock lock(&mutex_);
  return last_step_;
}

void FakeWorker::run() {
  stream_ = stub_->Attach(&context_);
  v1::Up up;
  *up.mutable_hello() = hello_;
  stream_->Write(up);
  v1::Down down;
  while (stream_->Read(&down) && take(down)) {
  }
  if (meeting_ != nullptr) meeting_->leave(rank_);
  const grpc::Status status = stream_->Finish();
  absl::MutexLock lock(&mutex_);
  status_ = status;
  done_ = true;
}

// False when the worker is to end by itself.
bool FakeWorker::take(const v1::Down& down) {
  switch (down.kind_case()) {
    case v1::Down::kWelcome: {
      absl::MutexLock lock(&mutex_);
      welcome_ = down.welcome();
    }
      digest_ = welcome_.nonce();
      if (rank_ == 0 && !script_.collective_id.empty()) {
        v1::Up up;
        up.mutable_collective_id()->set_epoch(welcome_.epoch());
        up.mutable_collective_id()->set_id(script_.collective_id);
        stream_->Write(up);
      }
      return true;
    case v1::Down::kCollectiveId: {
      absl::MutexLock lock(&mutex_);
      if (down.collective_id().epoch() != welcome_.epoch()) broken_ = "an id of another epoch";
      collective_id_ = down.collective_id().id();
      return true;
    }
    case v1::Down::kPlan:
      take_plan(down.plan());
      return true;
    case v1::Down::kDrain: {
      stream_->WritesDone();
      absl::MutexLock lock(&mutex_);
      drained_ = true;
      sealed_ = down.drain().saved_prefixes();
      return true;
    }
    case v1::Down::kRefusal: {
      absl::MutexLock lock(&mutex_);
      refusal_ = down.refusal().reason();
      return true;
    }
    default:
      return true;
  }
}

void FakeWorker::take_plan(const std::string& bytes) {
  if (!script_.collective.empty() && collective_id().empty()) {
    absl::MutexLock lock(&mutex_);
    broken_ = "a plan came before the collective's id";
  }
  const absl::StatusOr<StepPlan> plan = wire::decode_plan(bytes);
  if (!plan.ok()) {
    absl::MutexLock lock(&mutex_);
    broken_ = std::string(plan.status().message());
    return;
  }
  if (meeting_ != nullptr) meeting_->arrive(rank_, plan->step);
  digest_ = wire::plan_digest(digest_, bytes);
  StepResult result{plan->epoch, plan->step, {}, 1};
  if (plan->step <= 2) {  // the fleet's dummy steps: no oracle knows their tokens
    for (const PlanRow& row : plan->rows) {
      if (row.samples) result.rows.push_back({static_cast<int>(result.rows.size()), 1, {}});
    }
  } else {
    if (mirror_ == nullptr) {
      HashWorkerConfig config;
      config.epoch = welcome_.epoch();
      config.first_step = plan->step;
      config.num_blocks = static_cast<int>(welcome_.num_blocks());
      config.block_size = static_cast<int>(welcome_.block_size());
      config.max_num_seqs = static_cast<int>(welcome_.max_num_seqs());
      config.max_num_batched_tokens = static_cast<int>(welcome_.max_num_batched_tokens());
      mirror_ = std::make_unique<HashWorker>(config);
    }
    if (absl::Status status = mirror_->run(*plan, &result); !status.ok()) {
      absl::MutexLock lock(&mutex_);
      if (broken_.empty()) broken_ = std::string(status.message());
    }
  }
  answer(*plan, result);
  absl::MutexLock lock(&mutex_);
  last_step_ = plan->step;
}

void FakeWorker::answer(const StepPlan& plan, const StepResult& result) {
  if (script_.before_answer) script_.before_answer(plan.step);
  if (script_.silent_from != 0 && plan.step >= script_.silent_from) return;
  if (rank_ == plan.sampling_rank) {
    v1::Up up;
    wire::encode(result, up.mutable_result());
    stream_->Write(up);
  }
  v1::Up up;
  v1::Heartbeat* beat = up.mutable_heartbeat();
  beat->set_epoch(plan.epoch);
  beat->set_step(plan.step);
  beat->set_plan_digest(plan.step == script_.wrong_digest_at ? digest_ + 1 : digest_);
  stream_->Write(up);
}

FakeGroup::FakeGroup(const std::string& address, int world, const std::string& instance,
                     const FakeWorkerScript& script) {
  const auto meeting = std::make_shared<FakeMeeting>(world);
  for (int r = 0; r < world; ++r) {
    ranks_.push_back(
        std::make_unique<FakeWorker>(address, r, world, instance, script, nullptr, meeting));
  }
}

}  // namespace quire::test
