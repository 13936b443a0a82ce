// The contract over models in this process: the fake that other tests stand on, and the real
// engine.
#include "services/inference/engine/local_language_model.h"
#include "tests/inference/contract/language_model_contract.h"
#include "tests/inference/fake/alphabet_model.h"
#include "tests/support/controlled_expert_store.h"
#include "tests/support/tiny_kimi.h"

namespace odmoe {
namespace {

std::unique_ptr<LanguageModel> OpenTinyKimi(std::shared_ptr<void>& keep) {
  const std::string& directory = TinyKimiDirectory("f32");
  LocalModelOptions options;
  options.model_directory = directory;
  options.experts = std::make_shared<ControlledExpertStore>(directory);
  options.threads = 2;
  auto model = OpenLocalLanguageModel(options);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : nullptr;
}

INSTANTIATE_TEST_SUITE_P(Local, LanguageModelContractTest,
                         testing::Values(ModelMaker{"Alphabet",
                                                    [](std::shared_ptr<void>&) {
                                                      return std::make_unique<AlphabetModel>("abc");
                                                    }},
                                         ModelMaker{"TinyKimi", OpenTinyKimi}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace odmoe
