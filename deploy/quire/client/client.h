// A gRPC client of quire.v1.Generation: one streaming call at a time, cancellable from a signal.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tls.h"

namespace quire {

struct ClientOptions {
  std::string server = "127.0.0.1:50051";
  std::string api_key;
  TlsPem tls;               // without `ca`: in the clear
  std::string server_name;  // in its certificate; empty: the host of `server`
  int wait_seconds = 0;     // keep trying for so long until the server is ready
};

struct Prompt {
  std::string text;                                           // used when messages is empty
  std::vector<std::pair<std::string, std::string>> messages;  // role, content
  float temperature = 1.0f;
  float top_p = 1.0f;
  bool has_seed = false;
  std::uint64_t seed = 0;
  int max_tokens = 0;  // 0 = what the context leaves
  int timeout_ms = 0;  // 0 = none: the answer may take as long as it takes
  int priority = 0;    // smaller is earlier
  int beams = 0;       // 0 = no beam search
  int best_of = 1;
};

struct Answer {
  std::string text;
  std::string finish_reason;
  int prompt_tokens = 0;
  int cached_tokens = 0;  // of the prompt
  int completion_tokens = 0;
};

class Client {
 public:
  explicit Client(ClientOptions options);
  ~Client();
  // Calls `on_text` for every piece. Cancelled when cancel() was called meanwhile. When the
  // connection breaks it resumes by itself, for half a minute.
  absl::StatusOr<Answer> generate(const Prompt& prompt,
                                  const std::function<void(const std::string&)>& on_text);
  // Ends the running call, if any. Any thread. Returns whether there was one.
  bool cancel();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
