// The handlers behind the table in routes.cpp. Each answers its exchange, now or later.
#pragma once

#include "coordinator/api/http.h"
#include "coordinator/api/service.h"

namespace quire {

void handle_completions(const Api& api, Exchange& exchange);
void handle_chat(const Api& api, Exchange& exchange);
void handle_stream(const Api& api, Exchange& exchange);  // the rest of an answer, by its name

void handle_models(const Api& api, Exchange& exchange);
void handle_model(const Api& api, Exchange& exchange);  // one of them, by id
void handle_health(const Api& api, Exchange& exchange);
void handle_ready(const Api& api, Exchange& exchange);
void handle_version(const Api& api, Exchange& exchange);
void handle_metrics(const Api& api, Exchange& exchange);

}  // namespace quire
