#include "clients/cli/model/model_json.h"

namespace odmoe {

Json ModelInfoToJson(const ModelInfo& info) {
  Json json;
  json["name"] = info.name;
  json["architecture"] = info.architecture;
  json["digest"] = info.digest;
  json["layer_count"] = info.layer_count;
  json["expert_count"] = info.expert_count;
  json["experts_per_token"] = info.experts_per_token;
  json["vocabulary_size"] = info.vocabulary_size;
  json["context_length"] = info.context_length;
  json["base_bytes"] = info.base_bytes;
  json["expert_bytes"] = info.expert_bytes;
  return json;
}

}  // namespace odmoe
