// The HTTP server with handlers of the test's own: connections, framing, limits, leaving clients.
#include "coordinator/api/http_server.h"

#include <gmock/gmock.h>

#include <condition_variable>
#include <mutex>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/coordinator/api/http_client.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;

class HttpServerTest : public ::testing::Test {
 protected:
  // /echo answers with method, path, body; /stream hands its exchange to the test, and so does
  // /stream/whole, where all may wait for the client.
  void start(HttpLimits limits = {}) {
    limits.linger = std::chrono::milliseconds(50);
    auto server = HttpServer::start_with([this](Exchange& exchange) { handle(exchange); },
                                         "127.0.0.1", 0, limits);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  void handle(Exchange& exchange) {
    const HttpRequest& request = exchange.request();
    if (!absl::StartsWith(request.path, "/stream")) {
      return exchange.respond(
          {.body = absl::StrCat(request.method, " ", request.path, " ", request.body),
           .content_type = "text/plain"});
    }
    exchange.start_events(/*bounded=*/exchange.request().path != "/stream/whole");
    auto waker = exchange.keep_running([this, &exchange] { on_wake(exchange); },
                                       [this] { count(&aborted_); });
    const std::lock_guard lock(mutex_);
    wakers_.push_back(std::move(waker));
    changed_.notify_all();
  }

  void on_wake(Exchange& exchange) {
    const std::string big(big_bytes_, 'x');
    for (int i = 0; i < events_per_wake_; ++i) exchange.send_event(absl::StrCat(i, big));
    if (end_on_wake_) exchange.end_events();
    count(&woken_);
  }

  void count(int* counter) {
    const std::lock_guard lock(mutex_);
    ++*counter;
    changed_.notify_all();
  }
  bool wait_for(const int& counter, int wanted) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, absl::ToChronoSeconds(kHttpPatience),
                             [&] { return counter >= wanted; });
  }
  bool wait_for_streams(std::size_t wanted) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, absl::ToChronoSeconds(kHttpPatience),
                             [&] { return wakers_.size() >= wanted; });
  }
  void wake_all() {
    std::vector<std::shared_ptr<Waker>> wakers;
    {
      const std::lock_guard lock(mutex_);
      wakers = wakers_;
    }
    for (const auto& waker : wakers) waker->wake();
  }
  bool wait_no_connections() {
    const absl::Time deadline = absl::Now() + kHttpPatience;
    while (server_->num_connections() > 0) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }
  int port() const { return server_->port(); }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Waker>> wakers_;
  int woken_ = 0, aborted_ = 0;
  int events_per_wake_ = 1;
  bool end_on_wake_ = false;
  std::size_t big_bytes_ = 0;
  std::unique_ptr<HttpServer> server_;  // stops before what its handlers use is gone
};

TEST_F(HttpServerTest, KeepsConnectionsAliveAndEchoesRequestIds) {
  start();
  HttpClient client(port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send(post("/echo", absl::StrCat("body", i), "X-Request-Id: id-1\r\n")));
    HttpAnswer answer = client.read_answer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, absl::StrCat("POST /echo body", i));
    EXPECT_EQ(answer.headers["x-request-id"], "id-1");
    EXPECT_EQ(answer.headers["connection"], "keep-alive");
  }
  ASSERT_TRUE(client.send(get("/echo", "X-Request-Id: bad id\r\nConnection: close\r\n")));
  HttpAnswer answer = client.read_answer();
  EXPECT_EQ(answer.headers["x-request-id"].size(), 32u);  // the client's is not usable
  EXPECT_EQ(answer.headers["connection"], "close");
  EXPECT_TRUE(client.wait_closed());
  EXPECT_TRUE(wait_no_connections());
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  start();
  HttpClient client(port());
  std::string all;
  for (int i = 0; i < 50; ++i) all += post(absl::StrCat("/echo", i), std::string(1000, 'b'));
  ASSERT_TRUE(client.send(all));
  for (int i = 0; i < 50; ++i) {
    const HttpAnswer answer = client.read_answer();
    EXPECT_THAT(answer.body, HasSubstr(absl::StrCat("/echo", i, " ")));
  }
}

TEST_F(HttpServerTest, TakesRequestsByteByByteAndInChunks) {
  start();
  HttpClient client(port());
  for (const char c : post("/echo", "slow")) ASSERT_TRUE(client.send(std::string(1, c)));
  EXPECT_EQ(client.read_answer().body, "POST /echo slow");
  std::string chunked = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 10000; ++i) chunked += "1\r\nz\r\n";
  ASSERT_TRUE(client.send(chunked + "0\r\n\r\n"));
  EXPECT_EQ(client.read_answer().body, "POST /echo " + std::string(10000, 'z'));
}

TEST_F(HttpServerTest, AnswersHead) {
  start();
  HttpClient client(port());
  ASSERT_TRUE(client.send("HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n"));
  HttpAnswer answer = client.read_answer(/*has_body=*/false);
  EXPECT_EQ(answer.headers["content-length"], "11");
  ASSERT_TRUE(client.send(get("/echo")));  // nothing of a body was in the way
  EXPECT_EQ(client.read_answer().body, "GET /echo ");
}

TEST_F(HttpServerTest, SendsContinueWhenAsked) {
  start();
  HttpClient client(port());
  ASSERT_TRUE(client.send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
  EXPECT_EQ(client.read_answer(false).status, 100);
  ASSERT_TRUE(client.send("ok"));
  EXPECT_EQ(client.read_answer().body, "POST /echo ok");
}

TEST_F(HttpServerTest, NormalisesPathsBeforeTheHandler) {
  start();
  const std::pair<const char*, const char*> cases[] = {{"//v1///models/", "/v1/models"},
                                                       {"/x/../v1/./models", "/v1/models"},
                                                       {"/v1%2fmodels?a=b", "/v1/models"},
                                                       {"http://host/v1/models", "/v1/models"},
                                                       {"/%76%31/models#part", "/v1/models"}};
  for (const auto& [target, path] : cases) {
    EXPECT_EQ(fetch(port(), get(target)).body, absl::StrCat("GET ", path, " ")) << target;
  }
  for (const char* target : {"/../etc", "/%zz", "/a%00b", "nothing"}) {
    EXPECT_EQ(fetch(port(), get(target)).status, 400) << target;
  }
}

TEST_F(HttpServerTest, RefusesWhatBreaksLimitsAndRules) {
  HttpLimits limits;
  limits.body_bytes = 1000;
  start(limits);
  std::string many_headers;
  for (int i = 0; i < 10000; ++i) absl::StrAppend(&many_headers, "h", i, ": v\r\n");
  const std::string both =
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::pair<int, std::string> cases[] = {
      {431, get("/echo", "Big: " + std::string(1 << 20, 'h') + "\r\n")},
      {431, get("/echo", many_headers)},
      {413, post("/echo", std::string(1001, 'b'))},
      {413, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"},
      {413, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"},
      {400, both},
      {400, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"},
      {400, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"},
      {400, std::string("\x16\x03\x01\x02\x00 a TLS hello\r\n\r\n", 20)},
      {415, post("/echo", "gz", "Content-Encoding: gzip\r\n")},
      {417, post("/echo", "x", "Expect: miracles\r\n")},
  };
  for (const auto& [status, request] : cases) {
    HttpClient client(port());
    client.send(request);  // may be cut short: the server answers before it has read all
    HttpAnswer answer = client.read_answer();
    EXPECT_EQ(answer.status, status) << request.substr(0, 120);
    EXPECT_TRUE(answer.json().contains("error")) << answer.body;
    EXPECT_EQ(answer.headers["connection"], "close");
  }
  EXPECT_EQ(fetch(port(), get("/echo")).status, 200);
  EXPECT_TRUE(wait_no_connections());
}

// S8: a million chunks of one byte are a body like any other, up to its limit; and a length that is
// too short makes what follows the next request, which it is not.
TEST_F(HttpServerTest, TinyChunksAndShortLengths) {
  HttpLimits limits;
  limits.body_bytes = 1000000;
  start(limits);
  const std::string head = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  std::string chunks;
  for (int i = 0; i < 1000000; ++i) chunks += "1\r\nb\r\n";
  HttpClient client(port());
  ASSERT_TRUE(client.send(head + chunks + "0\r\n\r\n"));
  const HttpAnswer whole = client.read_answer();
  EXPECT_EQ(whole.status, 200);
  EXPECT_EQ(whole.body.size(), 1000000 + std::string("POST /echo ").size());
  client.send(head + chunks + "1\r\nb\r\n0\r\n\r\n");
  EXPECT_EQ(client.read_answer().status, 413);
  EXPECT_TRUE(client.wait_closed());

  HttpClient liar(port());
  ASSERT_TRUE(
      liar.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nabcdef\r\n\r\n"));
  EXPECT_EQ(liar.read_answer().body, "POST /echo ab");
  EXPECT_EQ(liar.read_answer().status, 400);
  EXPECT_TRUE(liar.wait_closed());
}

TEST_F(HttpServerTest, EndsConnectionsThatDawdle) {
  HttpLimits limits;
  limits.header = limits.body = limits.idle = std::chrono::milliseconds(50);
  start(limits);
  HttpClient slow_header(port()), slow_body(port()), idle(port());
  ASSERT_TRUE(slow_header.send("GET /echo HTTP/1.1\r\nHost"));
  ASSERT_TRUE(slow_body.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"));
  EXPECT_EQ(slow_header.read_answer().status, 408);
  EXPECT_EQ(slow_body.read_answer().status, 408);
  EXPECT_TRUE(idle.wait_closed());
  EXPECT_TRUE(slow_header.wait_closed());
}

TEST_F(HttpServerTest, ClosesWhatIsBeyondTheConnectionLimit) {
  HttpLimits limits;
  limits.connections = 2;
  start(limits);
  HttpClient first(port()), second(port());
  for (HttpClient* client : {&first, &second}) {
    ASSERT_TRUE(client->send(get("/echo")));
    EXPECT_EQ(client->read_answer().status, 200);
  }
  HttpClient third(port());
  EXPECT_TRUE(third.wait_closed());
  ASSERT_TRUE(first.send(get("/echo")));
  EXPECT_EQ(first.read_answer().status, 200);
}

TEST_F(HttpServerTest, StreamsEventsAndKeepsTheConnection) {
  start();
  HttpClient client(port());
  ASSERT_TRUE(client.send(get("/stream")));
  HttpAnswer head = client.read_head();
  EXPECT_EQ(head.status, 200);
  EXPECT_THAT(head.headers["content-type"], HasSubstr("text/event-stream"));
  ASSERT_TRUE(wait_for_streams(1));
  for (int i = 0; i < 3; ++i) {
    wake_all();
    EXPECT_EQ(client.read_event(), "0");
    ASSERT_TRUE(wait_for(woken_, i + 1));  // its on_wake has returned: the flags may change
  }
  end_on_wake_ = true;
  wake_all();
  EXPECT_EQ(client.read_event(), "0");
  EXPECT_FALSE(client.read_event().has_value());
  ASSERT_TRUE(client.send(get("/echo")));
  EXPECT_EQ(client.read_answer().status, 200);
  wake_all();  // after the end: nothing happens
  EXPECT_EQ(aborted_, 0);
}

// So that no proxy cuts a stream that waits.
TEST_F(HttpServerTest, AQuietStreamGetsComments) {
  HttpLimits limits;
  limits.quiet = std::chrono::milliseconds(20);
  start(limits);
  HttpClient client(port());
  ASSERT_TRUE(client.send(get("/stream")));
  EXPECT_EQ(client.read_head().status, 200);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client.read_comment(), "waiting");
  // One that has ended gets none: the next bytes are the next answer's.
  HttpClient other(port());
  ASSERT_TRUE(other.send(get("/stream")));
  EXPECT_EQ(other.read_head().status, 200);
  ASSERT_TRUE(wait_for_streams(2));
  end_on_wake_ = true;
  events_per_wake_ = 0;
  wake_all();
  while (other.read_comment().has_value()) {
  }
  std::this_thread::sleep_for(3 * limits.quiet);
  ASSERT_TRUE(other.send(get("/echo")));
  EXPECT_EQ(other.read_answer().status, 200);
}

TEST_F(HttpServerTest, StreamsToHttp10UntilItCloses) {
  start();
  HttpClient client(port());
  ASSERT_TRUE(client.send("GET /stream HTTP/1.0\r\n\r\n"));
  HttpAnswer head = client.read_head();
  EXPECT_EQ(head.headers.count("transfer-encoding"), 0u);
  ASSERT_TRUE(wait_for_streams(1));
  events_per_wake_ = 0;
  end_on_wake_ = true;
  wake_all();
  EXPECT_TRUE(client.wait_closed());
}

TEST_F(HttpServerTest, TellsTheWorkThatTheClientLeft) {
  start();
  for (const bool with_reset : {false, true}) {
    HttpClient client(port());
    ASSERT_TRUE(client.send(get("/stream")));
    EXPECT_EQ(client.read_head().status, 200);
    with_reset ? client.reset() : client.close();
    EXPECT_TRUE(wait_for(aborted_, with_reset ? 2 : 1));
  }
  EXPECT_TRUE(wait_no_connections());
}

TEST_F(HttpServerTest, CutsAClientThatLetsTooMuchWait) {
  HttpLimits limits;
  limits.unsent_bytes = 100000;
  start(limits);
  big_bytes_ = 10000;
  events_per_wake_ = 1000;  // 10 MB at once
  HttpClient client(port(), 4096);
  ASSERT_TRUE(client.send(get("/stream")));
  ASSERT_TRUE(wait_for_streams(1));
  wake_all();
  EXPECT_TRUE(wait_for(aborted_, 1));
  EXPECT_TRUE(wait_no_connections());
}

TEST_F(HttpServerTest, AStreamThatComesAtOnceIsNotBounded) {
  HttpLimits limits;
  limits.unsent_bytes = 100000;
  start(limits);
  big_bytes_ = 10000;
  events_per_wake_ = 1000;  // 10 MB at once
  end_on_wake_ = true;
  HttpClient client(port(), 4096);
  ASSERT_TRUE(client.send(get("/stream/whole")));
  ASSERT_TRUE(wait_for_streams(1));
  wake_all();
  EXPECT_EQ(client.read_head().status, 200);
  int events = 0;
  while (const auto event = client.read_event()) {
    EXPECT_TRUE(absl::StartsWith(*event, absl::StrCat(events++, "x"))) << event->substr(0, 20);
  }
  EXPECT_EQ(events, 1000);
}

TEST_F(HttpServerTest, CutsAClientThatStopsReading) {
  HttpLimits limits;
  limits.unsent_bytes = 64 << 20;
  limits.write = std::chrono::milliseconds(100);
  start(limits);
  big_bytes_ = 10000;
  events_per_wake_ = 3000;
  HttpClient client(port(), 4096);
  ASSERT_TRUE(client.send(get("/stream")));
  ASSERT_TRUE(wait_for_streams(1));
  wake_all();
  EXPECT_TRUE(wait_for(aborted_, 1));
}

TEST_F(HttpServerTest, HoldsAThousandStreams) {
  constexpr int kStreams = 1000;
  start();
  std::vector<HttpClient> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.emplace_back(port());
    ASSERT_TRUE(clients.back().send(get("/stream"))) << i;
  }
  for (HttpClient& client : clients) ASSERT_EQ(client.read_head().status, 200);
  ASSERT_TRUE(wait_for_streams(kStreams));
  EXPECT_EQ(server_->num_connections(), kStreams);
  events_per_wake_ = 3;
  end_on_wake_ = true;
  wake_all();
  for (HttpClient& client : clients) {
    for (int i = 0; i < 3; ++i) ASSERT_EQ(client.read_event(), std::to_string(i));
    ASSERT_FALSE(client.read_event().has_value());
  }
}

TEST_F(HttpServerTest, StopsWithStreamsOpen) {
  start();
  std::vector<HttpClient> clients;
  for (int i = 0; i < 20; ++i) {
    clients.emplace_back(port());
    ASSERT_TRUE(clients.back().send(get("/stream")));
    ASSERT_EQ(clients.back().read_head().status, 200);
  }
  ASSERT_TRUE(wait_for_streams(20));
  server_->stop();
  EXPECT_EQ(aborted_, 20);
  for (HttpClient& client : clients) EXPECT_TRUE(client.wait_closed());
  wake_all();  // the engine may be late
}

TEST_F(HttpServerTest, SaysThatThePortIsTaken) {
  start();
  const auto second = HttpServer::start_with([](Exchange&) {}, "127.0.0.1", port());
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(std::to_string(port())));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--port"));
  const auto nowhere = HttpServer::start_with([](Exchange&) {}, "203.0.113.1", 0);
  EXPECT_FALSE(nowhere.ok());
}

}  // namespace
}  // namespace quire::test
