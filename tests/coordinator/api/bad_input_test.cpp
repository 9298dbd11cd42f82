// Bad input over HTTP, row by row: status, the field it names, a part of the sentence. After all of
// it a good request still gets the right answer and nothing runs.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/coordinator/api/openai_fixture.h"

namespace quire::test {
namespace {

using ::testing::HasSubstr;

struct Row {
  std::string fields;  // replace or extend a good body's
  int status;
  const char* param;    // "" = null
  const char* message;  // a part of it
};

class BadInputTest : public OpenAiTest {
 protected:
  void expect_error(const HttpAnswer& answer, const Row& row) {
    EXPECT_EQ(answer.status, row.status) << row.fields.substr(0, 200) << "\n" << answer.body;
    const Json error = answer.json().value("error", Json::object());
    EXPECT_EQ(error.value("param", Json()), *row.param == '\0' ? Json() : Json(row.param))
        << row.fields.substr(0, 200) << "\n"
        << answer.body;
    EXPECT_THAT(error.value("message", ""), HasSubstr(row.message)) << row.fields.substr(0, 200);
    EXPECT_EQ(error.value("type", ""), "invalid_request_error");
    EXPECT_TRUE(error.contains("code"));
    EXPECT_LT(answer.body.size(), 2000u);
  }

  void check(const std::string& path, const Json& good, const std::vector<Row>& rows) {
    HttpClient client(port());  // one connection for all: none of this may close it
    for (const Row& row : rows) {
      Json body = good;
      const Json fields = Json::parse("{" + row.fields + "}", nullptr, false);
      ASSERT_FALSE(fields.is_discarded()) << row.fields;
      body.update(fields);
      ASSERT_TRUE(client.send(post(path, body.dump())));
      expect_error(client.read_answer(), row);
    }
    ASSERT_TRUE(client.send(post(path, good.dump())));
    EXPECT_EQ(client.read_answer().status, 200);
    EXPECT_TRUE(wait_idle());
    EXPECT_EQ(engine_->stats().finished_length, 1u);
  }

  static Json completion() { return {{"prompt", "hello"}, {"max_tokens", 3}, {"seed", kSeed}}; }
  static Json chat_body() {
    return {{"messages", {{{"role", "user"}, {"content", "hello"}}}}, {"max_tokens", 3}};
  }
};

// Listens on a loopback port and answers nobody.
class HttpServerProbe {
 public:
  HttpServerProbe() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    EXPECT_TRUE(bind(fd_, raw, size) == 0 && listen(fd_, 8) == 0);
    EXPECT_EQ(getsockname(fd_, raw, &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~HttpServerProbe() { close(fd_); }
  HttpServerProbe(const HttpServerProbe&) = delete;
  HttpServerProbe& operator=(const HttpServerProbe&) = delete;

  int port() const { return port_; }
  bool was_called() const {
    const int client = accept(fd_, nullptr, nullptr);
    if (client >= 0) close(client);
    return client >= 0;
  }

 private:
  const int fd_;
  int port_ = 0;
};

std::string list_of(const std::string& element, int count) {
  std::string out = "[";
  for (int i = 0; i < count; ++i) absl::StrAppend(&out, i > 0 ? "," : "", element);
  return out + "]";
}

TEST_F(BadInputTest, SamplingFields) {
  check("/v1/completions", completion(),
        {
            {R"("n": 0)", 400, "n", "[1, 64]"},
            {R"("n": -1)", 400, "n", "[1, 64]"},
            {R"("n": 1000000000)", 400, "n", "[1, 64]"},
            {R"("n": 9223372036854775808)", 400, "n", "[1, 64]"},
            {R"("n": 1.5)", 400, "n", "integer"},
            {R"("n": "3")", 400, "n", "integer"},
            {R"("n": true)", 400, "n", "integer"},
            {R"("logprobs": 21)", 400, "logprobs", "[0, 20]"},
            {R"("logprobs": -1)", 400, "logprobs", "[0, 20]"},
            {R"("logprobs": 64)", 400, "logprobs", "[0, 20]"},
            {R"("logprob_token_ids": )" + list_of("1", 10000), 400, "logprob_token_ids",
             "not supported"},
            {R"("logprobs": true)", 400, "logprobs", "integer"},
            {R"("max_tokens": 0)", 400, "max_tokens", "at least 1"},
            {R"("max_tokens": -1)", 400, "max_tokens", "at least 1"},
            {R"("max_tokens": 2147483648)", 400, "max_tokens", "2048"},
            {R"("max_tokens": 2044)", 400, "max_tokens", "At most 2043"},
            {R"("temperature": -1)", 400, "temperature", "[0, 2]"},
            {R"("temperature": 1e308)", 400, "temperature", "[0, 2]"},
            {R"("temperature": "hot")", 400, "temperature", "number"},
            {R"("temperature": false)", 400, "temperature", "number"},
            {R"("top_p": 0)", 400, "top_p", "(0, 1]"},
            {R"("top_p": 2)", 400, "top_p", "(0, 1]"},
            {R"("top_k": -5)", 400, "top_k", "-1"},
            {R"("top_k": 2.5)", 400, "top_k", "integer"},
            {R"("min_p": 1.5)", 400, "min_p", "[0, 1]"},
            {R"("seed": 1180591620717411303424)", 400, "seed", "integer"},
            {R"("seed": "x")", 400, "seed", "integer"},
            {R"("stop": )" + list_of("\"x\"", 17), 400, "stop", "at most 16"},
            {R"("stop": )" + list_of("\"x\"", 1000), 400, "stop", "at most 16"},
            {R"("stop": ")" + std::string(1 << 20, 's') + "\"", 400, "stop", "256"},
            {R"("stop": "")", 400, "stop", "1 to 256"},
            {R"("stop": [1])", 400, "stop", "list of texts"},
            {R"("stop_token_ids": [64])", 400, "stop_token_ids", "[0, 63]"},
            {R"("stop_token_ids": [-1])", 400, "stop_token_ids", "[0, 63]"},
            {R"("stop_token_ids": "1")", 400, "stop_token_ids", "list of integers"},
            {R"("stop_token_ids": )" + list_of("1", 65), 400, "stop_token_ids", "64"},
            {R"("ignore_eos": 1)", 400, "ignore_eos", "true or false"},
            {R"("stream": "yes")", 400, "stream", "true or false"},
            {R"("stream_options": {"include_usage": true})", 400, "stream_options", "`stream`"},
            {R"("stream": true, "stream_options": 3)", 400, "stream_options", "object"},
        });
}

TEST_F(BadInputTest, Prompts) {
  check("/v1/completions", completion(),
        {
            {R"("prompt": null)", 400, "prompt", "missing"},
            {R"("prompt": "")", 400, "prompt", "at least one token"},
            {R"("prompt": [])", 400, "prompt", "at least one token"},
            {R"("prompt": 5)", 400, "prompt", "text"},
            {R"("prompt": {})", 400, "prompt", "text"},
            {R"("prompt": [-1])", 400, "prompt", "[0, 63]"},
            {R"("prompt": [1, 64])", 400, "prompt", "entry 1 is 64"},
            {R"("prompt": [1, "a"])", 400, "prompt", "not every entry is a token id"},
            {R"("prompt": ["a", 1])", 400, "prompt", "entry that is"},
            {R"("prompt": [1, 1.5])", 400, "prompt", "text"},
            {R"("prompt": [[1], [[2]]])", 400, "prompt", "text"},
            {R"("prompt": ["a", ""])", 400, "prompt", "at least one token"},
            {R"("prompt": )" + list_of("\"a\"", 257), 400, "prompt", "at most 256"},
            {R"("prompt": )" + list_of("1", 1000000), 400, "prompt", "2048"},
            {R"("prompt": ")" + std::string(5000, 'p') + "\"", 400, "prompt", "5000 tokens"},
            {R"("prompt": )" + list_of("\"a\"", 10000), 400, "prompt", "at most 256"},
            {R"("prompt": [[[1]]])", 400, "prompt", "text"},
            {R"("prompt": [[]])", 400, "prompt", "at least one token"},
            {R"("model": "other")", 404, "model", "\"letters\""},
            {R"("model": "../x")", 404, "model", "letters"},
            {R"("model": ")" + std::string(1 << 20, 'm') + "\"", 404, "model", "letters"},
            {R"("model": 5)", 400, "model", "text"},
        });
}

TEST_F(BadInputTest, WhatChangesLogits) {
  std::string many = "{";
  for (int i = 0; i < 301; ++i) absl::StrAppend(&many, i > 0 ? "," : "", "\"", i, "\": 1");
  check("/v1/completions", completion(),
        {
            {R"("presence_penalty": 2.5)", 400, "presence_penalty", "in [-2, 2]"},
            {R"("presence_penalty": -1e9)", 400, "presence_penalty", "in [-2, 2]"},
            {R"("presence_penalty": "much")", 400, "presence_penalty", "number"},
            {R"("frequency_penalty": 1e9)", 400, "frequency_penalty", "in [-2, 2]"},
            {R"("frequency_penalty": -1e308)", 400, "frequency_penalty", "in [-2, 2]"},
            {R"("repetition_penalty": 0)", 400, "repetition_penalty", "in [0.01, 100]"},
            {R"("repetition_penalty": -1)", 400, "repetition_penalty", "in [0.01, 100]"},
            {R"("repetition_penalty": 1e308)", 400, "repetition_penalty", "in [0.01, 100]"},
            {R"("logit_bias": [5])", 400, "logit_bias", "an object of token ids and biases"},
            {R"("logit_bias": {"hello": 1})", 400, "logit_bias", "keys must be token ids"},
            {R"("logit_bias": {"05": 1})", 400, "logit_bias", "keys must be token ids"},
            {R"("logit_bias": {"5": "1"})", 400, "logit_bias", "of id 5 is \"1\""},
            {R"("logit_bias": {"5": true})", 400, "logit_bias", "must be a number"},
            {R"("logit_bias": {"64": 1})", 400, "logit_bias", "[0, 63]"},
            {R"("logit_bias": {"-1": 1})", 400, "logit_bias", "[0, 63]"},
            {R"("logit_bias": {"99999999999": 1})", 400, "logit_bias", "[0, 63]"},
            {R"("logit_bias": {"5": 100.5})", 400, "logit_bias", "in [-100, 100]"},
            {R"("logit_bias": {"5": -1e300})", 400, "logit_bias", "in [-100, 100]"},
            {R"("logit_bias": )" + many + "}", 400, "logit_bias", "at most 300"},
            {R"("min_tokens": -1)", 400, "min_tokens", "at least 0"},
            {R"("min_tokens": 4)", 400, "min_tokens", "at most 3 tokens"},
            {R"("min_tokens": 1e30)", 400, "min_tokens", "at most 3 tokens"},
            {R"("min_tokens": 1.5)", 400, "min_tokens", "integer"},
            {R"("allowed_token_ids": [])", 400, "allowed_token_ids", "empty list"},
            {R"("allowed_token_ids": 5)", 400, "allowed_token_ids", "list of integers"},
            {R"("allowed_token_ids": [5, 64])", 400, "allowed_token_ids", "entry 1 is 64"},
            {R"("allowed_token_ids": )" + list_of("1", 65), 400, "allowed_token_ids", "at most 64"},
            {R"("allowed_token_ids": [7, 8], "stop_token_ids": [8, 7], "min_tokens": 1)", 400,
             "allowed_token_ids", "which `min_tokens` forbids"},
        });
}

TEST_F(BadInputTest, FieldsThatAreNotBuilt) {
  check("/v1/completions", completion(),
        {
            {R"("bad_words": ["x"])", 400, "bad_words", "not supported"},
            {R"("echo": true)", 400, "echo", "not supported"},
            {R"("suffix": "x")", 400, "suffix", "not supported"},
            {R"("prompt_logprobs": 1)", 400, "prompt_logprobs", "not supported"},
            {R"("prompt_logprobs": -1)", 400, "prompt_logprobs", "not supported"},
            {R"("guided_json": {})", 400, "guided_json", "is not supported"},
            {R"("response_format": {"type": "json_object"})", 400, "response_format", "other than"},
            {R"("prompt_embeds": "gASV")", 400, "prompt_embeds", "not supported"},
            {R"("add_special_tokens": false)", 400, "add_special_tokens", "not supported"},
        });
}

// S11 and S13: what a server that had them would have to bound is refused before it is looked at,
// by every endpoint.
TEST_F(BadInputTest, TemplatesAndGrammarsOfRequests) {
  std::string deep = "1";
  for (int i = 0; i < 40; ++i) deep = R"({"type": "array", "items": )" + deep + "}";
  const std::string type = R"("response_format": {"type": "json_schema", "json_schema": )";
  const std::vector<Row> rows = {
      {R"("chat_template": "{{ 1 }}")", 400, "chat_template", "not supported"},
      {R"("chat_template_kwargs": {"chat_template": "x"})", 400, "chat_template_kwargs",
       "not supported"},
      {R"("chat_template_kwargs": {"tokenize": false})", 400, "chat_template_kwargs",
       "not supported"},
      {R"("chat_template_kwargs": {"add_generation_prompt": [1]})", 400, "chat_template_kwargs",
       "not supported"},
      {R"("guided_regex": "(a+)+$")", 400, "guided_regex", "not supported"},
      {R"("guided_regex": "(a{1,9999}){1,9999}")", 400, "guided_regex", "not supported"},
      {R"("guided_regex": ")" + std::string(30000, '(') + "\"", 400, "guided_regex",
       "not supported"},
      {R"("guided_grammar": "root ::= root")", 400, "guided_grammar", "not supported"},
      {R"("guided_choice": )" + list_of("\"c\"", 100000), 400, "guided_choice", "not supported"},
      {R"x("structured_outputs": {"regex": "(?=a)"})x", 400, "structured_outputs", "other than"},
      {R"("guided_json": {"$ref": "#"})", 400, "guided_json", "not supported"},
      {R"("guided_json": {"$ref": "http://169.254.169.254/"})", 400, "guided_json",
       "not supported"},
      {R"("guided_json": {"pattern": "(", "type": 5})", 400, "guided_json", "not supported"},
      {type + R"({"schema": {"enum": )" + list_of("\"e\"", 100000) + "}}}", 400, "response_format",
       "other than"},
      {type + R"({"schema": )" + deep + "}}", 400, "response_format", "other than"},
      {R"("tools": [{"type": "function", "function": {"parameters": {"type": 5}}}])", 400, "tools",
       "not supported"},
  };
  check("/v1/completions", completion(), rows);
  start({});
  check("/v1/chat/completions", chat_body(), rows);
}

// S14: nothing of a schema is kept, so ten thousand different ones leave nothing behind.
TEST_F(BadInputTest, ManySchemas) {
  HttpClient client(port());
  for (int i = 0; i < 10000; ++i) {
    Json body = completion();
    body["guided_json"] = {{"title", absl::StrCat("schema ", i)}};
    ASSERT_TRUE(client.send(post("/v1/completions", body.dump())));
    ASSERT_EQ(client.read_answer().status, 400);
  }
  EXPECT_EQ(complete(completion())["choices"][0]["text"], oracle_text("hello", 3));
}

// S15: nobody is called to fetch what a request names.
TEST_F(BadInputTest, UrlsAreNotFetched) {
  HttpServerProbe probe;
  std::vector<Row> rows;
  const std::string local = absl::StrCat("127.0.0.1:", probe.port(), "/x.png");
  for (const std::string& url :
       {"http://" + local, "https://" + local, "http://2130706433:" + absl::StrCat(probe.port()),
        std::string("file:///etc/passwd"), std::string("http://169.254.169.254/latest/meta-data"),
        std::string("data:image/png;base64,iVBORw0KGgo=")}) {
    rows.push_back({R"("messages": [{"role": "user", "content": [{"type": "image_url", )"
                    R"("image_url": {"url": ")" +
                        url + R"("}}]}])",
                    400, "messages", "reads text only"});
  }
  check("/v1/chat/completions", chat_body(), rows);
  EXPECT_FALSE(probe.was_called());
}

TEST_F(BadInputTest, HowARequestWaits) {
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    const bool chat = path == std::string("/v1/chat/completions");
    if (chat) start({});
    check(
        path, chat ? chat_body() : completion(),
        {
            {R"("priority": 1)", 400, "priority", "--scheduling-policy priority"},
            {R"("priority": -1)", 400, "priority", "--scheduling-policy priority"},
            {R"("priority": 1001)", 400, "priority", "[-1000, 1000]"},
            {R"("priority": 1e300)", 400, "priority", "[-1000, 1000]"},
            {R"("priority": "high")", 400, "priority", "integer"},
            {R"("timeout": 0)", 400, "timeout", "above 0"},
            {R"("timeout": -1.5)", 400, "timeout", "above 0"},
            {R"("timeout": "1s")", 400, "timeout", "number"},
            {R"("deadline_ms": 0)", 400, "deadline_ms", "at least 1"},
            {R"("deadline_ms": -7)", 400, "deadline_ms", "at least 1"},
            {R"("deadline_ms": 1.5)", 400, "deadline_ms", "integer"},
            {R"("deadline_ms": 100, "timeout": 0.1)", 400, "timeout", "both given"},
            {R"("cache_salt": "")", 400, "cache_salt", "0 characters"},
            {R"("cache_salt": 5)", 400, "cache_salt", "text"},
            {R"("cache_salt": ")" + std::string(1025, 's') + "\"", 400, "cache_salt", "1 to 1024"},
        });
  }
}

TEST_F(BadInputTest, HowChoicesAreFound) {
  const std::string beams = R"("use_beam_search": true, )";
  check("/v1/completions", completion(),
        {
            {R"("best_of": 0)", 400, "best_of", "[1, 64]"},
            {R"("best_of": 65)", 400, "best_of", "[1, 64]"},
            {R"("best_of": 2, "n": 3)", 400, "best_of", "[3, 64]"},
            {R"("best_of": 2.5)", 400, "best_of", "integer"},
            {R"("best_of": 2, "stream": true)", 400, "best_of", "cannot be streamed"},
            {R"("use_beam_search": 1)", 400, "use_beam_search", "true or false"},
            {R"("length_penalty": 2)", 400, "length_penalty", "without `use_beam_search`"},
            {R"("early_stopping": true)", 400, "early_stopping", "without `use_beam_search`"},
            {R"("early_stopping": "never")", 400, "early_stopping", "without `use_beam_search`"},
            {R"("early_stopping": "later")", 400, "early_stopping", "\"never\""},
            {R"("early_stopping": 1)", 400, "early_stopping", "true, false or"},
            {beams + R"("n": 17)", 400, "n", "at most 16 can run."},
            {beams + R"("best_of": 17)", 400, "best_of", "the number of beams"},
            {beams + R"("length_penalty": 11)", 400, "length_penalty", "[-10, 10]"},
            {beams + R"("length_penalty": "1")", 400, "length_penalty", "number"},
            {beams + R"("temperature": 0.7)", 400, "temperature", "no token is drawn"},
            {beams + R"("top_p": 0.9)", 400, "top_p", "no token is drawn"},
            {beams + R"("top_k": 5)", 400, "top_k", "no token is drawn"},
            {beams + R"("min_p": 0.1)", 400, "min_p", "no token is drawn"},
            {beams + R"("presence_penalty": 1)", 400, "presence_penalty", "own logprobs"},
            {beams + R"("frequency_penalty": 1)", 400, "frequency_penalty", "own logprobs"},
            {beams + R"("repetition_penalty": 1.1)", 400, "repetition_penalty", "own logprobs"},
            {beams + R"("logit_bias": {"5": 1})", 400, "logit_bias", "own logprobs"},
            {beams + R"("min_tokens": 2)", 400, "min_tokens", "own logprobs"},
            {beams + R"("allowed_token_ids": [1])", 400, "allowed_token_ids", "own logprobs"},
            {beams + R"("logprobs": 1)", 400, "logprobs", "send 0"},
            {beams + R"("stop": "x")", 400, "stop", "use `stop_token_ids`"},
            {beams + R"("temperature": 3)", 400, "temperature", "[0, 2]"},
        });
}

TEST_F(BadInputTest, BeamsThatCouldNeverRunTogether) {
  start({.max_num_seqs = 3});
  check("/v1/completions", completion(),
        {{R"("use_beam_search": true, "n": 4)", 400, "n", "at most 3 can run on this server"}});
}

TEST_F(BadInputTest, Messages) {
  check("/v1/chat/completions", chat_body(),
        {
            {R"("messages": null)", 400, "messages", "at least one"},
            {R"("messages": [])", 400, "messages", "at least one"},
            {R"("messages": "hi")", 400, "messages", "list"},
            {R"("messages": ["hi"])", 400, "messages", "entry 0 must be an object"},
            {R"("messages": [{"content": "x"}])", 400, "messages", "`role`"},
            {R"("messages": [{"role": 5, "content": "x"}])", 400, "messages", "`role`"},
            {R"("messages": [{"role": "user"}])", 400, "messages", "`content`"},
            {R"("messages": [{"role": "user", "content": 5}])", 400, "messages", "text parts"},
            {R"("messages": [{"role": "user", "content": [{"type": "image_url", "image_url":)"
             R"( {"url": "http://169.254.169.254/"}}]}])",
             400, "messages", "reads text only"},
            {R"("messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}])", 400,
             "messages", "tool calls"},
            {R"("messages": )" + list_of(R"({"role":"user","content":"x"})", 4097), 400, "messages",
             "4096"},
            {R"("messages": [{"role": "user", "content": ")" + std::string(3000, 'x') + "\"}]", 400,
             "messages", "2048"},
            {R"("chat_template": "{{ 1 }}")", 400, "chat_template", "not supported"},
            {R"("chat_template_kwargs": {"chat_template": "x"})", 400, "chat_template_kwargs",
             "not supported"},
            {R"("tools": [{"type": "function"}])", 400, "tools", "not supported"},
            {R"("tool_choice": "required")", 400, "tool_choice", "not supported"},
            {R"("response_format": {"type": "json_schema"})", 400, "response_format", "other than"},
            {R"("logprobs": 3)", 400, "logprobs", "true or false"},
            {R"("top_logprobs": 2)", 400, "top_logprobs", "`logprobs`"},
            {R"("logprobs": true, "top_logprobs": 21)", 400, "top_logprobs", "[0, 20]"},
            {R"("logprobs": true, "top_logprobs": -1)", 400, "top_logprobs", "[0, 20]"},
            {R"("max_completion_tokens": 4)", 400, "max_completion_tokens", "`max_tokens`"},
            {R"("max_tokens": null, "max_completion_tokens": 0)", 400, "max_completion_tokens",
             "at least 1"},
            {R"("n": 65)", 400, "n", "[1, 64]"},
        });
}

TEST_F(BadInputTest, ContextLengthHasItsCode) {
  Json request = completion();
  request["prompt"] = std::string(3000, 'x');
  Json error = ask("/v1/completions", request).json()["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("3000"));
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("2048"));
  request = completion();
  request["max_tokens"] = 5000;
  EXPECT_EQ(ask("/v1/completions", request).json()["error"]["code"], "context_length_exceeded");
  request["model"] = "x";
  EXPECT_EQ(ask("/v1/completions", request).json()["error"]["code"], "model_not_found");
}

TEST_F(BadInputTest, AnotherModelIsNotLookedFor) {
  for (const std::string& name :
       {std::string("../x"), std::string("/etc/passwd"), std::string("test.gguf"),
        std::string("a\nb\x1b[2J"), std::string(1 << 20, 'm')}) {
    for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
      Json request = completion();
      request["messages"] = {{{"role", "user"}, {"content", "x"}}};
      request["model"] = name;
      const HttpAnswer answer = ask(path, request);
      EXPECT_EQ(answer.status, 404) << name.substr(0, 20);
      EXPECT_EQ(answer.json()["error"]["code"], "model_not_found");
      EXPECT_LT(answer.body.size(), 1000u);
      EXPECT_EQ(answer.body.find('\x1b'), std::string::npos);
    }
  }
  EXPECT_EQ(fetch(port(), get("/v1/models/..%2f..%2fetc%2fpasswd")).status, 404);
  EXPECT_EQ(fetch(port(), get("/v1/models/etc%2fpasswd")).status, 404);
}

TEST_F(BadInputTest, Bodies) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "at byte"},
      {"{", "at byte 2"},
      {R"({"prompt": "a"} junk)", "at byte 17"},
      {R"({"prompt": NaN})", "at byte 12"},
      {R"({"temperature": 1e400})", "at byte"},
      {"{\"prompt\": \"\xff\"}", "at byte"},
      {R"({"prompt": "\ud800"})", "at byte"},
      {std::string("{\"prompt\": \"a\0b\"}", 17), "at byte"},
      {"\xEF\xBB\xBF{}", "byte order mark"},
      {R"({"prompt": "a", "prompt": "b"})", "twice"},
      {std::string(100000, '['), "deeper than 64"},
      {list_of("1", 3), "must be a JSON object"},
      {"null", "must be a JSON object"},
  };
  HttpClient client(port());
  for (const auto& [body, message] : cases) {
    ASSERT_TRUE(client.send(post("/v1/completions", body)));
    expect_error(client.read_answer(), {body, 400, "", message});
  }
  for (const char* header : {"", "Content-Type: text/plain\r\n"}) {
    ASSERT_TRUE(client.send(post("/v1/completions", completion().dump(), header)));
    expect_error(client.read_answer(), {header, 415, "", "application/json"});
  }
  ASSERT_TRUE(client.send(post("/v1/completions", completion().dump(),
                               "Content-Type: Application/JSON; charset=utf-8\r\n")));
  const HttpAnswer answer = client.read_answer();
  EXPECT_EQ(answer.json()["choices"][0]["text"], oracle_text("hello", 3));
}

}  // namespace
}  // namespace quire::test
