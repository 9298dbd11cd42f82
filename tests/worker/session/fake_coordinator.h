// A coordinator that follows a script: one function per stream, run on gRPC's thread.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "common/step.h"
#include "fleet.grpc.pb.h"

namespace quire::test {

using AttachStream = grpc::ServerReaderWriter<v1::Down, v1::Up>;
using Script = std::function<grpc::Status(const v1::Hello& hello, AttachStream& stream)>;

class FakeCoordinator final : public v1::Fleet::Service {
 public:
  // Port 0 takes a free one; without credentials it speaks in the clear.
  explicit FakeCoordinator(Script script, int port = 0,
                           std::shared_ptr<grpc::ServerCredentials> credentials = nullptr);
  ~FakeCoordinator() override;
  std::string address() const;
  int port() const { return port_; }

 private:
  grpc::Status Attach(grpc::ServerContext* context, AttachStream* stream) override;

  Script script_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

inline constexpr std::uint64_t kNonce = 0x5eed;  // of every Welcome
void send_welcome(AttachStream& stream, int num_blocks, int lease_ms = 5000,
                  std::uint64_t epoch = 7);
void send_welcome_with_store(AttachStream& stream, int host_blocks, bool keep_saved);
void send_plan(AttachStream& stream, const StepPlan& plan);
void send_drain(AttachStream& stream, std::uint64_t saved_prefixes = 0);
void send_collective_id(AttachStream& stream, const std::string& id, EpochId epoch = 7);
void send_refusal(AttachStream& stream, const std::string& reason);
// Reads on until a message of `kind`; false when the stream ends first.
bool await(AttachStream& stream, v1::Up::KindCase kind, v1::Up* message);
// Reads until the worker closes its side.
void read_to_end(AttachStream& stream);

}  // namespace quire::test
