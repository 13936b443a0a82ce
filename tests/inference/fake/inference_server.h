// The inference service in this process, on a free port, over models that a test makes.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "services/core/generation/language_model.h"
#include "services/core/rpc/server.h"
#include "services/inference/service/inference_service.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {

class InferenceServer {
 public:
  struct Options {
    // An AlphabetModel named as the directory's last component where null.
    ModelFactory open_model;
    int max_calls = 8;
  };

  // Serves with the empty model directories "alphabet" and "other" below its root, none loaded. The
  // test fails where it cannot.
  explicit InferenceServer(Options options);
  InferenceServer() : InferenceServer(Options()) {}
  ~InferenceServer();

  const std::string& endpoint() const { return server_->address(); }
  // A path below the root.
  std::string PathOf(const std::string& name) const { return directory_ / "root/" + name; }
  const TemporaryDirectory& directory() const { return directory_; }
  InferenceService& service() { return *service_; }
  RpcServer& server() { return *server_; }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace odmoe
