#include "tests/support/expert_storage_server.h"

#include <utility>

#include "absl/time/clock.h"

namespace odmoe {

ExpertStorageTestServer::ExpertStorageTestServer(StoreHost::Options options, int compute_threads,
                                                 absl::Duration stream_patience)
    : models(std::move(options)) {
  ExpertStorageServiceOptions service_options;
  service_options.socket_directory = sockets.path();
  service_options.compute_threads = compute_threads;
  service_options.stream_patience = stream_patience;
  service = ExpertStorageServer::Create(models, service_options).value();
  RpcServerOptions server_options;
  server_options.services = {service->service()};
  server = RpcServer::Start(server_options).value();
  endpoint = server->address();
}

ExpertStorageTestServer::~ExpertStorageTestServer() { server->Shutdown(absl::Now()); }

}  // namespace odmoe
