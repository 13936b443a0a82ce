// An expert-storage service inside the test's process.
#pragma once

#include <memory>
#include <string>

#include "services/core/rpc/server.h"
#include "services/expert_storage/service/expert_storage_service.h"
#include "services/expert_storage/service/store_host.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {

// Serves until destroyed, on a free port, its socket in a directory of its own.
struct ExpertStorageTestServer {
  explicit ExpertStorageTestServer(StoreHost::Options options = {}, int compute_threads = 0,
                                   absl::Duration stream_patience = absl::Seconds(30));
  ~ExpertStorageTestServer();

  TemporaryDirectory sockets;
  StoreHost models;
  std::unique_ptr<ExpertStorageServer> service;
  std::unique_ptr<RpcServer> server;
  std::string endpoint;
};

}  // namespace odmoe
