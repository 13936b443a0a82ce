#include "services/conversion/jobs/convert_options.h"

namespace odmoe {

ConvertOptions ToConvertOptions(const ConvertSpec& spec) {
  ConvertOptions options;
  options.source = spec.source;
  options.destination = spec.destination;
  options.outtype = spec.outtype;
  options.pre_tokenizer = spec.pre_tokenizer;
  options.tensor_map = spec.tensor_map;
  options.metadata = spec.metadata;
  options.base_model = spec.base_model;
  options.vocab_only = spec.vocab_only;
  options.pad_vocab = spec.pad_vocab;
  options.split_max_bytes = spec.split_max_bytes;
  options.concurrency = spec.concurrency;
  options.replace_other = spec.restart;
  return options;
}

}  // namespace odmoe
