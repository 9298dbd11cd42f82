// Tells ThreadSanitizer that what a gRPC call does comes after what asked for it: Debian's library
// is not built with it, and hands operations to its own threads without a lock. Linked as
// absl_mutex.cpp.
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpcpp/support/server_callback.h>
#include <sanitizer/tsan_interface.h>

#include <thread>

#include "tests/sanitizers/library.h"

using quire::sanitizers::call_library;

namespace {

// Stands for all calls where no one call is known.
char any_call;

}  // namespace

extern "C" {

grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t count, void* tag,
                                      void* reserved) {
  __tsan_release(call);
  __tsan_release(&any_call);
  return call_library<"grpc_call_start_batch", grpc_call_error>(call, ops, count, tag, reserved);
}

// Every completed batch gives back its reference to the call before our callback runs.
void grpc_call_unref(grpc_call* call) {
  __tsan_acquire(call);
  __tsan_release(call);
  call_library<"grpc_call_unref", void>(call);
}

// A received message is parsed before that, into what an earlier callback has read.
int grpc_byte_buffer_reader_init(grpc_byte_buffer_reader* reader, grpc_byte_buffer* buffer) {
  __tsan_acquire(&any_call);
  return call_library<"grpc_byte_buffer_reader_init", int>(reader, buffer);
}

}  // extern "C"

namespace grpc::internal {
namespace {

// Stands in for a reactor that is told of its cancellation; the library's own thread tells it, then
// gives up a reference that OnDone waits for.
class Cancelled final : public ServerReactor {
 public:
  Cancelled(void* call, ServerReactor* reactor) : call_(call), reactor_(reactor) {}
  void OnCancel() override {
    reactor_->OnCancel();
    __tsan_release(call_);
    delete this;
  }
  void OnDone() override {}

 private:
  void* call_;
  ServerReactor* reactor_;
};

}  // namespace

void ServerCallbackCall::CallOnCancel(ServerReactor* reactor) {
  call_library<"_ZN4grpc8internal18ServerCallbackCall12CallOnCancelEPNS0_13ServerReactorE", void>(
      this, static_cast<ServerReactor*>(new Cancelled(this, reactor)));
}

// The end of a call, once every callback has given up its reference. Callbacks in our program do so
// by the count below; the library's own does so where nobody sees it, then comes here. What the
// library does with a call that may not end on this thread (it hands it to another) is done here by
// a thread whose start is seen: what it deletes, callbacks on other threads have used.
void ServerCallbackCall::ScheduleOnDone(bool inline_ondone) {
  __tsan_acquire(this);
  __tsan_acquire(&callbacks_outstanding_);
  if (inline_ondone) {
    CallOnDone();
  } else {
    std::thread([this] { CallOnDone(); }).detach();
  }
}

}  // namespace grpc::internal
