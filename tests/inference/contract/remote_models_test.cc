// The contract over models behind the service: what a client sees through gRPC is what a caller in
// the service's process sees.
#include <utility>

#include "clients/cpp/remote_language_model.h"
#include "services/inference/engine/local_language_model.h"
#include "tests/inference/contract/language_model_contract.h"
#include "tests/inference/fake/inference_server.h"
#include "tests/support/controlled_expert_store.h"
#include "tests/support/tiny_kimi.h"

namespace odmoe {
namespace {

std::unique_ptr<LanguageModel> Serve(InferenceServer::Options options,
                                     std::shared_ptr<void>& keep) {
  auto server = std::make_shared<InferenceServer>(std::move(options));
  const auto info = server->service().LoadModel(server->PathOf("alphabet"), 0);
  EXPECT_TRUE(info.ok()) << info.status();
  auto model = ConnectLanguageModel(server->endpoint(), info->name);
  EXPECT_TRUE(model.ok()) << model.status();
  keep = std::move(server);
  return model.ok() ? *std::move(model) : nullptr;
}

absl::StatusOr<std::unique_ptr<LanguageModel>> OpenTinyKimi(const std::string&, int32_t) {
  const std::string& directory = TinyKimiDirectory("f32");
  LocalModelOptions options;
  options.model_directory = directory;
  options.experts = std::make_shared<ControlledExpertStore>(directory);
  options.threads = 2;
  return OpenLocalLanguageModel(options);
}

INSTANTIATE_TEST_SUITE_P(
    Remote, LanguageModelContractTest,
    testing::Values(ModelMaker{"Alphabet", [](std::shared_ptr<void>& keep) {
                                 return Serve({}, keep);
                               }},
                    ModelMaker{"TinyKimi", [](std::shared_ptr<void>& keep) {
                                 return Serve({.open_model = OpenTinyKimi}, keep);
                               }}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace odmoe
