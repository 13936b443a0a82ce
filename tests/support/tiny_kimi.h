// The trained tiny model of tests/data, converted, and what its float64 reference says of it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "services/core/generation/language_model.h"

namespace odmoe {

// The model directory of tests/data/tiny-kimi in `outtype`, made on first use in this process and
// removed at its end. The test fails where it cannot be made. Thread-safe.
const std::string& TinyKimiDirectory(const std::string& outtype);

// One file of tests/data/tiny-kimi-reference; the fields as its README.md says.
struct ReferenceText {
  std::string name;
  std::string text;
  std::vector<TokenId> tokens;
  std::vector<double> logprobs;  // [0] is 0: the reference has null there
  double perplexity = 0.0;
  std::map<int32_t, std::vector<std::vector<int32_t>>> experts;
  std::vector<TokenId> greedy;  // empty for a passage
  std::string greedy_text;
};

// All five texts, the three prompts first.
const std::vector<ReferenceText>& ReferenceTexts();

}  // namespace odmoe
