#include "services/conversion/jobs/convert_options.h"

#include "absl/strings/str_cat.h"

namespace odmoe {

absl::Status CheckConvertible(const ConvertSpec& spec) {
  const char* field = !spec.tensor_map.empty()   ? "tensor_map"
                      : !spec.metadata.empty()   ? "metadata"
                      : !spec.base_model.empty() ? "base_model"
                                                 : nullptr;
  if (field == nullptr) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("the converter knows no ", field));
}

ConvertOptions ToConvertOptions(const ConvertSpec& spec) {
  ConvertOptions options;
  options.source = spec.source;
  options.destination = spec.destination;
  options.outtype = spec.outtype;
  options.pre_tokenizer = spec.pre_tokenizer;
  options.vocab_only = spec.vocab_only;
  options.pad_vocab = spec.pad_vocab;
  options.split_max_bytes = spec.split_max_bytes;
  options.concurrency = spec.concurrency;
  return options;
}

}  // namespace odmoe
