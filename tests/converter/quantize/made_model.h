// Small GGUF models of every kind that the rules of mixes tell apart, with the same bytes
// everywhere.
#pragma once

#include <string>
#include <vector>

namespace odmoe {

// By name; tests/data/quantize/README.md lists them. Rows have 256 numbers, but where a fallback is
// to be seen, and there are two or three of them: no engine would run it.
std::vector<std::string> MadeModelNames();
std::string MakeModel(const std::string& name);
// An importance matrix for all its weights but the embeddings.
std::string MakeImportance(const std::string& name);

}  // namespace odmoe
