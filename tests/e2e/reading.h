// A generation that is read token by token, so that a test can do something in its middle.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/e2e/server.h"

namespace quire::test {

inline v1::GenerateRequest request_of(int max_tokens,
                                      const std::string& text = "Once upon a time") {
  v1::GenerateRequest request;
  request.set_text(text);
  request.set_max_tokens(static_cast<std::uint32_t>(max_tokens));
  request.set_ignore_eos(true);
  request.set_temperature(0);
  return request;
}

class Reading {
 public:
  Reading(Server& server, const v1::GenerateRequest& request)
      : reader_(server.stub().Generate(&context_, request)) {}
  bool read(std::size_t at_least) {
    v1::GenerateReply reply;
    while (tokens_.size() < at_least && reader_->Read(&reply)) {
      for (const int id : reply.delta().token_ids()) tokens_.push_back(id);
    }
    return tokens_.size() >= at_least;
  }
  grpc::Status finish() {
    read(1 << 30);
    return reader_->Finish();
  }
  const std::vector<int>& tokens() const { return tokens_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateReply>> reader_;
  std::vector<int> tokens_;
};

}  // namespace quire::test
