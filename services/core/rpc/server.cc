#include "services/core/rpc/server.h"

#include <mutex>
#include <utility>

#include "absl/time/clock.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/server_posix.h"
#include "services/core/base/status_macros.h"
#include "services/core/rpc/listener.h"

namespace odmoe {
namespace {

// gRPC's memory for buffers of all connections together.
constexpr size_t kBufferQuotaBytes = size_t{256} << 20;

void EnablePlugins() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

class AcceptingServer : public RpcServer {
 public:
  AcceptingServer(std::unique_ptr<Listener> listener, std::unique_ptr<grpc::Server> server,
                  const std::vector<std::string>& service_names)
      : listener_(std::move(listener)), server_(std::move(server)) {
    for (const std::string& name : service_names) {
      server_->GetHealthCheckService()->SetServingStatus(name, true);
    }
    SetServing(true);
    listener_->Start([this](int fd) { grpc::AddInsecureChannelFromFd(server_.get(), fd); });
  }

  ~AcceptingServer() override { Shutdown(absl::Now()); }

  const std::string& address() const override { return listener_->address(); }

  void SetServing(bool serving) override {
    server_->GetHealthCheckService()->SetServingStatus(serving);
  }

  void Shutdown(absl::Time deadline) override {
    SetServing(false);
    listener_->Stop();
    server_->Shutdown(absl::ToChronoTime(deadline));
  }

 private:
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options) {
  EnablePlugins();
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<Listener> listener, Listener::Bind(options.listen));
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  grpc::ResourceQuota quota("odmoe");
  quota.Resize(kBufferQuotaBytes);
  builder.SetResourceQuota(quota);
  for (grpc::Service* service : options.services) builder.RegisterService(service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return absl::InternalError("gRPC could not start a server");
  return std::make_unique<AcceptingServer>(std::move(listener), std::move(server),
                                           options.service_names);
}

}  // namespace odmoe
