#include "tests/worker/session/fake_coordinator.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/wire.h"

namespace quire::test {

FakeCoordinator::FakeCoordinator(Script script, int port,
                                 std::shared_ptr<grpc::ServerCredentials> credentials)
    : script_(std::move(script)) {
  if (credentials == nullptr) credentials = grpc::InsecureServerCredentials();
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), credentials, &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  QUIRE_CHECK(server_ != nullptr);
}

FakeCoordinator::~FakeCoordinator() {
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
}

std::string FakeCoordinator::address() const {
  return absl::StrCat("127.0.0.1:", port_);
}

grpc::Status FakeCoordinator::Attach(grpc::ServerContext*, AttachStream* stream) {
  v1::Up first;
  if (!stream->Read(&first) || !first.has_hello()) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no Hello");
  }
  return script_(first.hello(), *stream);
}

namespace {

v1::Down welcome_message(int num_blocks, int lease_ms, std::uint64_t epoch = 7) {
  v1::Down down;
  v1::Welcome& welcome = *down.mutable_welcome();
  welcome.set_epoch(epoch);
  welcome.set_nonce(kNonce);
  welcome.set_num_blocks(static_cast<std::uint32_t>(num_blocks));
  welcome.set_block_size(16);
  welcome.set_max_num_seqs(4);
  welcome.set_max_num_batched_tokens(64);
  welcome.set_max_model_len(256);
  welcome.set_heartbeat_ms(20);
  welcome.set_lease_ms(static_cast<std::uint32_t>(lease_ms));
  return down;
}

}  // namespace

void send_welcome(AttachStream& stream, int num_blocks, int lease_ms, std::uint64_t epoch) {
  stream.Write(welcome_message(num_blocks, lease_ms, epoch));
}

void send_welcome_with_store(AttachStream& stream, int host_blocks, bool keep_saved) {
  v1::Down down = welcome_message(8, 5000);
  down.mutable_welcome()->set_host_blocks(static_cast<std::uint32_t>(host_blocks));
  down.mutable_welcome()->set_keep_saved(keep_saved);
  stream.Write(down);
}

void send_plan(AttachStream& stream, const StepPlan& plan) {
  v1::Down down;
  down.set_plan(wire::encode(plan));
  stream.Write(down);
}

void send_drain(AttachStream& stream, std::uint64_t saved_prefixes) {
  v1::Down down;
  down.mutable_drain()->set_epoch(7);
  down.mutable_drain()->set_saved_prefixes(saved_prefixes);
  stream.Write(down);
}

void send_collective_id(AttachStream& stream, const std::string& id, EpochId epoch) {
  v1::Down down;
  down.mutable_collective_id()->set_epoch(epoch);
  down.mutable_collective_id()->set_id(id);
  stream.Write(down);
}

void send_refusal(AttachStream& stream, const std::string& reason) {
  v1::Down down;
  down.mutable_refusal()->set_reason(reason);
  stream.Write(down);
}

bool await(AttachStream& stream, v1::Up::KindCase kind, v1::Up* message) {
  while (stream.Read(message)) {
    if (message->kind_case() == kind) return true;
  }
  return false;
}

void read_to_end(AttachStream& stream) {
  v1::Up message;
  while (stream.Read(&message)) {
  }
}

}  // namespace quire::test
