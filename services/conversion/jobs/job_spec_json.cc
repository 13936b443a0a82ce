#include "services/conversion/jobs/job_spec_json.h"

#include <initializer_list>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/json.h"

namespace odmoe {
namespace {

using Json = nlohmann::json;

// A file of a user's: what is wrong with it is the user's to mend.
absl::Status AsInvalidArgument(const absl::Status& status) {
  return status.ok() ? status : absl::InvalidArgumentError(status.message());
}

// A mistyped name must not be taken for a default.
absl::Status CheckKeys(const JsonObject& object, std::initializer_list<const char*> known) {
  for (const auto& [key, value] : object.value().items()) {
    if (absl::c_none_of(known, [&key = key](const char* name) { return key == name; })) {
      return absl::InvalidArgumentError(absl::StrCat(object.where(), ": no field '", key,
                                                     "'; known are ", absl::StrJoin(known, ", ")));
    }
  }
  return absl::OkStatus();
}

// Reads the fields that are there into their places; the first error of all stays.
class FieldReader {
 public:
  explicit FieldReader(const JsonObject& object) : object_(object) {}

  FieldReader& Text(const char* key, std::string& out, bool required = false) {
    return Read(key, required, out, [&] { return object_.String(key); });
  }
  FieldReader& Flag(const char* key, bool& out) {
    return Read(key, false, out, [&] { return object_.Bool(key); });
  }
  template <typename Number>
  FieldReader& Count(const char* key, Number& out, int64_t least, int64_t most) {
    return Read(key, false, out, [&] { return object_.Int(key, least, most); });
  }
  FieldReader& Texts(const char* key, std::vector<std::string>& out) {
    if (!status_.ok() || !object_.Has(key)) return *this;
    const absl::StatusOr<const Json*> array = object_.Array(key);
    status_ = array.status();
    for (size_t i = 0; status_.ok() && i < (*array)->size(); ++i) {
      if (!(**array)[i].is_string()) {
        status_ = object_.Wrong(key, "an array of strings");
      } else {
        out.push_back((**array)[i].get<std::string>());
      }
    }
    return *this;
  }
  absl::Status status() const { return AsInvalidArgument(status_); }

 private:
  template <typename Value, typename Get>
  FieldReader& Read(const char* key, bool required, Value& out, const Get& get) {
    if (!status_.ok() || (!required && !object_.Has(key))) return *this;
    auto value = get();
    status_ = value.status();
    if (value.ok()) out = static_cast<Value>(*std::move(value));
    return *this;
  }

  const JsonObject& object_;
  absl::Status status_;
};

absl::StatusOr<StepSpec> ConvertFrom(const JsonObject& object) {
  ODMOE_RETURN_IF_ERROR(CheckKeys(
      object, {"source", "destination", "outtype", "pre_tokenizer", "tensor_map", "metadata",
               "base_model", "vocab_only", "pad_vocab", "split_max_bytes", "concurrency",
               "restart"}));
  ConvertSpec spec;
  ODMOE_RETURN_IF_ERROR(FieldReader(object)
                            .Text("source", spec.source, true)
                            .Text("destination", spec.destination, true)
                            .Text("outtype", spec.outtype)
                            .Text("pre_tokenizer", spec.pre_tokenizer)
                            .Text("tensor_map", spec.tensor_map)
                            .Texts("metadata", spec.metadata)
                            .Text("base_model", spec.base_model)
                            .Flag("vocab_only", spec.vocab_only)
                            .Count("pad_vocab", spec.pad_vocab, 0, 1 << 30)
                            .Count("split_max_bytes", spec.split_max_bytes, 0,
                                   std::numeric_limits<int64_t>::max())
                            .Count("concurrency", spec.concurrency, 0, 1024)
                            .Flag("restart", spec.restart)
                            .status());
  return spec;
}

absl::StatusOr<StepSpec> MergeFrom(const JsonObject& object) {
  ODMOE_RETURN_IF_ERROR(CheckKeys(
      object, {"source", "destination", "verify", "concurrency", "restart"}));
  MergeSpec spec;
  ODMOE_RETURN_IF_ERROR(FieldReader(object)
                            .Text("source", spec.source, true)
                            .Text("destination", spec.destination, true)
                            .Flag("verify", spec.verify)
                            .Count("concurrency", spec.concurrency, 0, 1024)
                            .Flag("restart", spec.restart)
                            .status());
  return spec;
}

absl::StatusOr<StepSpec> VerifyFrom(const JsonObject& object) {
  ODMOE_RETURN_IF_ERROR(CheckKeys(object, {"source", "concurrency"}));
  VerifySpec spec;
  ODMOE_RETURN_IF_ERROR(FieldReader(object)
                            .Text("source", spec.source, true)
                            .Count("concurrency", spec.concurrency, 0, 1024)
                            .status());
  return spec;
}

absl::StatusOr<StepSpec> EvaluateFrom(const JsonObject& object) {
  ODMOE_RETURN_IF_ERROR(
      CheckKeys(object, {"model", "text", "base_model", "chunk_tokens", "max_chunks"}));
  EvaluateSpec spec;
  ODMOE_RETURN_IF_ERROR(FieldReader(object)
                            .Text("model", spec.model, true)
                            .Text("text", spec.text, true)
                            .Text("base_model", spec.base_model)
                            .Count("chunk_tokens", spec.chunk_tokens, 8, 1 << 24)
                            .Count("max_chunks", spec.max_chunks, 0, int64_t{1} << 31)
                            .status());
  return spec;
}

absl::StatusOr<StepSpec> QuantizeFrom(const JsonObject& object) {
  ODMOE_RETURN_IF_ERROR(CheckKeys(
      object, {"source", "destination", "types", "batch", "directories", "pure",
               "leave_output_tensor", "allow_requantize", "force_ternary", "output_tensor_type",
               "token_embedding_type", "tensor_types", "importance", "keep_split",
               "split_max_bytes", "concurrency", "skip_trial", "text", "base_model"}));
  QuantizeSpec spec;
  ODMOE_RETURN_IF_ERROR(FieldReader(object)
                            .Text("source", spec.source, true)
                            .Text("destination", spec.destination, true)
                            .Texts("types", spec.types)
                            .Flag("batch", spec.batch)
                            .Flag("directories", spec.directories)
                            .Flag("pure", spec.pure)
                            .Flag("leave_output_tensor", spec.leave_output_tensor)
                            .Flag("allow_requantize", spec.allow_requantize)
                            .Flag("force_ternary", spec.force_ternary)
                            .Text("output_tensor_type", spec.output_tensor_type)
                            .Text("token_embedding_type", spec.token_embedding_type)
                            .Texts("tensor_types", spec.tensor_types)
                            .Text("importance", spec.importance)
                            .Flag("keep_split", spec.keep_split)
                            .Count("split_max_bytes", spec.split_max_bytes, 0,
                                   std::numeric_limits<int64_t>::max())
                            .Count("concurrency", spec.concurrency, 0, 1024)
                            .Flag("skip_trial", spec.skip_trial)
                            .Text("text", spec.text)
                            .Text("base_model", spec.base_model)
                            .status());
  return spec;
}

absl::StatusOr<StepSpec> StepFrom(const Json& value, const std::string& where) {
  if (!value.is_object() || value.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": expected an object with one member: convert, merge, verify, ",
                     "evaluate or quantize"));
  }
  const std::string kind = value.begin().key();
  const absl::StatusOr<JsonObject> fields =
      JsonObject::From(value.begin().value(), absl::StrCat(where, ".", kind));
  if (!fields.ok()) return AsInvalidArgument(fields.status());
  if (kind == "convert") return ConvertFrom(*fields);
  if (kind == "merge") return MergeFrom(*fields);
  if (kind == "verify") return VerifyFrom(*fields);
  if (kind == "evaluate") return EvaluateFrom(*fields);
  if (kind == "quantize") return QuantizeFrom(*fields);
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": no kind of step '", kind, "'; known are convert, merge, verify, ",
                   "evaluate, quantize"));
}

Json ToJson(const QuantizeSpec& spec) {
  const QuantizeSpec defaults;
  Json json{{"source", spec.source}, {"destination", spec.destination}};
  const auto add = [&](const char* key, const auto field) {
    if (spec.*field != defaults.*field) json[key] = spec.*field;
  };
  add("types", &QuantizeSpec::types);
  add("batch", &QuantizeSpec::batch);
  add("directories", &QuantizeSpec::directories);
  add("pure", &QuantizeSpec::pure);
  add("leave_output_tensor", &QuantizeSpec::leave_output_tensor);
  add("allow_requantize", &QuantizeSpec::allow_requantize);
  add("force_ternary", &QuantizeSpec::force_ternary);
  add("output_tensor_type", &QuantizeSpec::output_tensor_type);
  add("token_embedding_type", &QuantizeSpec::token_embedding_type);
  add("tensor_types", &QuantizeSpec::tensor_types);
  add("importance", &QuantizeSpec::importance);
  add("keep_split", &QuantizeSpec::keep_split);
  add("split_max_bytes", &QuantizeSpec::split_max_bytes);
  add("concurrency", &QuantizeSpec::concurrency);
  add("skip_trial", &QuantizeSpec::skip_trial);
  add("text", &QuantizeSpec::text);
  add("base_model", &QuantizeSpec::base_model);
  return json;
}

Json ToJson(const ConvertSpec& spec) {
  const ConvertSpec defaults;
  Json json{{"source", spec.source}, {"destination", spec.destination}};
  const auto add = [&json](const char* key, const auto& value, const auto& ordinary) {
    if (value != ordinary) json[key] = value;
  };
  add("outtype", spec.outtype, defaults.outtype);
  add("pre_tokenizer", spec.pre_tokenizer, defaults.pre_tokenizer);
  add("tensor_map", spec.tensor_map, defaults.tensor_map);
  add("metadata", spec.metadata, defaults.metadata);
  add("base_model", spec.base_model, defaults.base_model);
  add("vocab_only", spec.vocab_only, defaults.vocab_only);
  add("pad_vocab", spec.pad_vocab, defaults.pad_vocab);
  add("split_max_bytes", spec.split_max_bytes, defaults.split_max_bytes);
  add("concurrency", spec.concurrency, defaults.concurrency);
  add("restart", spec.restart, defaults.restart);
  return json;
}

Json ToJson(const MergeSpec& spec) {
  Json json{{"source", spec.source}, {"destination", spec.destination}};
  if (!spec.verify) json["verify"] = false;
  if (spec.concurrency != 0) json["concurrency"] = spec.concurrency;
  if (spec.restart) json["restart"] = true;
  return json;
}

Json ToJson(const VerifySpec& spec) {
  Json json{{"source", spec.source}};
  if (spec.concurrency != 0) json["concurrency"] = spec.concurrency;
  return json;
}

Json ToJson(const EvaluateSpec& spec) {
  const EvaluateSpec defaults;
  Json json{{"model", spec.model}, {"text", spec.text}};
  if (!spec.base_model.empty()) json["base_model"] = spec.base_model;
  if (spec.chunk_tokens != defaults.chunk_tokens) json["chunk_tokens"] = spec.chunk_tokens;
  if (spec.max_chunks != 0) json["max_chunks"] = spec.max_chunks;
  return json;
}

}  // namespace

absl::StatusOr<JobSpec> ParseJobSpec(absl::string_view text, const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const Json document, ParseJson(text, where));
  const absl::StatusOr<JsonObject> object = JsonObject::From(document, where);
  if (!object.ok()) return AsInvalidArgument(object.status());
  ODMOE_RETURN_IF_ERROR(CheckKeys(*object, {"priority", "steps"}));
  JobSpec spec;
  ODMOE_RETURN_IF_ERROR(
      FieldReader(*object)
          .Count("priority", spec.priority, -JobSpec::kMaxPriority, JobSpec::kMaxPriority)
          .status());
  const absl::StatusOr<const Json*> steps = object->Array("steps");
  if (!steps.ok()) return AsInvalidArgument(steps.status());
  if ((*steps)->empty() || (*steps)->size() > JobSpec::kMaxSteps) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", (*steps)->size(),
                                                   " steps, expected 1 to ", JobSpec::kMaxSteps));
  }
  for (size_t i = 0; i < (*steps)->size(); ++i) {
    ODMOE_ASSIGN_OR_RETURN(spec.steps.emplace_back(),
                           StepFrom((**steps)[i], absl::StrCat(where, ": steps[", i, "]")));
  }
  return spec;
}

absl::StatusOr<std::string> StepSpecToJson(const StepSpec& step) {
  Json json;
  json[KindOf(step)] = std::visit([](const auto& spec) { return ToJson(spec); }, step);
  // What is not UTF-8 is replaced on writing, so that nothing throws, and is then not the same.
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  ODMOE_ASSIGN_OR_RETURN(const StepSpec again, StepSpecFromJson(text, "step"));
  if (!(again == step)) {
    return absl::InvalidArgumentError("a path or option of the step is not UTF-8 text");
  }
  return text;
}

absl::StatusOr<StepSpec> StepSpecFromJson(absl::string_view text, const std::string& where) {
  ODMOE_ASSIGN_OR_RETURN(const Json document, ParseJson(text, where));
  return StepFrom(document, where);
}

}  // namespace odmoe
