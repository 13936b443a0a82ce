// OpenAI's HTTP API in front of a language model, wherever that runs.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/core/generation/language_model.h"
#include "services/core/http/http_server.h"
#include "services/gateway/openai/api_keys.h"

namespace odmoe {

struct GatewayOptions {
  HttpServerOptions http;          // .listen is the address
  LanguageModel* model = nullptr;  // not owned; outlives the server
  ApiKeys keys;                    // for /v1/...; /health and /metrics need none
  int max_running = 64;            // completions generated at once
  int max_waiting = 64;            // that wait for one to end; those beyond get 429
};

// Serves POST /v1/completions, GET /v1/models, /v1/models/NAME, /health, /metrics. Thread-safe.
class GatewayServer {
 public:
  // INVALID_ARGUMENT: an address that is none, no model, or a bound below one. UNAVAILABLE: the
  // address is taken.
  static absl::StatusOr<std::unique_ptr<GatewayServer>> Start(GatewayOptions options);
  // Ends what runs at its next token, if Drain was not called.
  virtual ~GatewayServer() = default;

  virtual int port() const = 0;
  // "http://127.0.0.1:8080"
  virtual std::string url() const = 0;

  // Refuses new completions and turns /health to 503, lets those under way end until the deadline,
  // then closes.
  virtual void Drain(absl::Time deadline) = 0;
};

}  // namespace odmoe
