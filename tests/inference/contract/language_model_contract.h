// What every LanguageModel is held to, wherever it runs.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/core/generation/language_model.h"

namespace odmoe {

// `keep` takes what must live as long as the model.
struct ModelMaker {
  std::string name;
  std::function<std::unique_ptr<LanguageModel>(std::shared_ptr<void>& keep)> make;
};

inline std::ostream& operator<<(std::ostream& out, const ModelMaker& maker) {
  return out << maker.name;
}

class LanguageModelContractTest : public ::testing::TestWithParam<ModelMaker> {
 protected:
  struct Output {
    GenerateSummary summary;
    std::vector<TokenEvent> events;
    std::string text;  // of the events and the tail
    std::vector<TokenId> tokens() const;
  };

  void SetUp() override;

  // A greedy continuation of "abc" that goes on past the end of text.
  static GenerateRequest Request(int32_t max_tokens);
  absl::StatusOr<Output> Generate(const GenerateRequest& request, const CallOptions& call = {});
  // The test fails where there is none.
  Output GenerateOrFail(const GenerateRequest& request);

  std::shared_ptr<void> keep_;
  std::unique_ptr<LanguageModel> model_;
};

}  // namespace odmoe
