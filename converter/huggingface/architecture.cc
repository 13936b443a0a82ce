#include "converter/huggingface/architecture.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "converter/huggingface/deepseek.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

struct Family {
  absl::string_view hugging_face_class;
  absl::StatusOr<std::unique_ptr<Architecture>> (*make)(const Checkpoint& checkpoint);
};

constexpr Family kFamilies[] = {
    {"DeepseekV2ForCausalLM", MakeDeepSeek},
    {"DeepseekV3ForCausalLM", MakeDeepSeek},
    {"KimiK25ForConditionalGeneration", MakeDeepSeek},
    {"KimiVLForConditionalGeneration", MakeDeepSeek},
};

}  // namespace

absl::StatusOr<std::unique_ptr<Architecture>> FindArchitecture(const Checkpoint& checkpoint) {
  const std::string path = absl::StrCat(checkpoint.folder(), "/config.json");
  const auto classes = checkpoint.config().find("architectures");
  std::string asked = "none";
  if (classes != checkpoint.config().end() && classes->is_array() && !classes->empty() &&
      classes->front().is_string()) {
    asked = classes->front().get<std::string>();
  }
  std::vector<absl::string_view> known;
  for (const Family& family : kFamilies) {
    if (family.hugging_face_class == asked) return family.make(checkpoint);
    known.push_back(family.hugging_face_class);
  }
  return absl::InvalidArgumentError(absl::StrCat(path, ": architecture ", asked,
                                                 " is not known; known: ",
                                                 absl::StrJoin(known, ", ")));
}

}  // namespace odmoe
