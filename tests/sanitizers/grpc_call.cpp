// Tells ThreadSanitizer that what a gRPC call does comes after what asked for it: Debian's library
// is not built with it, and hands operations to its own threads without a lock. Linked as
// absl_mutex.cpp.
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <sanitizer/tsan_interface.h>

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
