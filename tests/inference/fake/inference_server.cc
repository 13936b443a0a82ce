#include "tests/inference/fake/inference_server.h"

#include <filesystem>
#include <utility>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/inference/fake/alphabet_model.h"

namespace odmoe {
namespace {

absl::StatusOr<std::unique_ptr<LanguageModel>> OpenAlphabet(const std::string& path,
                                                            int32_t context_length) {
  return std::make_unique<AlphabetModel>(std::filesystem::path(path).filename(),
                                         context_length == 0 ? 64 : context_length);
}

}  // namespace

InferenceServer::InferenceServer(Options options) {
  for (const char* name : {"alphabet", "other"}) std::filesystem::create_directories(PathOf(name));
  InferenceServiceOptions service_options;
  service_options.open_model = options.open_model ? std::move(options.open_model) : OpenAlphabet;
  service_options.roots = {directory_ / "root"};
  service_options.max_calls = options.max_calls;
  auto service = InferenceService::Create(std::move(service_options));
  EXPECT_TRUE(service.ok()) << service.status();
  service_ = *std::move(service);
  RpcServerOptions server_options;
  server_options.services = {service_->grpc_service()};
  server_options.service_names = {InferenceService::Name()};
  auto server = RpcServer::Start(server_options);
  EXPECT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
}

InferenceServer::~InferenceServer() { server_->Shutdown(absl::Now()); }

}  // namespace odmoe
