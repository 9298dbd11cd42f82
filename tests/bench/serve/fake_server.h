// A server with as much of OpenAI's API as a load generator meets: it streams as many chunks as
// were asked for, and keeps what it was asked. On a free port of 127.0.0.1; a thread a connection.
// How it misbehaves is set before requests come.
#pragma once

#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace quire::bench {

class FakeServer {
 public:
  struct Manners {
    int tokens_a_chunk = 1;
    bool usage = true;            // the stream ends with one
    int refuse_beyond = 1 << 30;  // requests after so many get 503
    bool silent = false;          // accepts, reads, and never answers
    bool break_off = false;       // closes after the first chunk
    bool endless = false;         // chunks until the client leaves
    int meet_before_answer = 1;   // answers begin once so many requests are there
  };

  explicit FakeServer(Manners manners);
  FakeServer() : FakeServer(Manners{}) {}
  ~FakeServer();
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  std::string url() const;
  std::vector<nlohmann::json> bodies() const;  // of POSTs, in the order they came
  std::vector<std::string> targets() const;    // of POSTs
  std::vector<std::string> authorizations() const;
  int most_at_once() const { return most_; }
  int chunks() const { return chunks_; }  // sent to all

 private:
  void accept_all();
  void serve(int socket);
  // All but the end, which is returned; nothing to send any more: empty.
  std::string answer(int socket, const nlohmann::json& body, bool chat);

  Manners manners_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<int> running_{0}, most_{0}, came_{0}, chunks_{0};
  mutable std::mutex mutex_;  // guards what follows
  std::vector<nlohmann::json> bodies_;
  std::vector<std::string> targets_, authorizations_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace quire::bench
