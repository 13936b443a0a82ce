#include "converter/toy/toy_model.h"

#include <cmath>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "converter/huggingface/families/deepseek.h"
#include "converter/huggingface/general_keys.h"
#include "services/core/base/status_macros.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

// The smallest attention whose rows are whole q8_0 blocks.
constexpr int64_t kHeads = 2;
constexpr int64_t kQueryRank = 32;
constexpr int64_t kKeyValueRank = 32;
constexpr int64_t kNopeDim = 32;
constexpr int64_t kRopeDim = 16;
constexpr int64_t kValueDim = 32;

constexpr const char* kMerges[] = {"\u0120 t", "h e", "i n", "\u0120t he", "e r", "a n"};
constexpr const char* kSpecialTokens[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
constexpr char kChatTemplate[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

// Sebastiano Vigna's splitmix64: a well-mixed word for every counter value.
uint64_t Mix(uint64_t counter) {
  uint64_t z = counter + 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Uniform in [-1, 1), exact in a float.
float Uniform(uint64_t word) {
  return static_cast<float>(static_cast<int32_t>(word >> 40) - (1 << 23)) * 0x1p-23f;
}

absl::Status CheckRange(absl::string_view name, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a toy model's ", name, " should be ", least, " to ", most, ", got ", value));
}

absl::Status Check(const ToyOptions& options) {
  ODMOE_RETURN_IF_ERROR(CheckRange("layers", options.layers, 2, 1024));
  ODMOE_RETURN_IF_ERROR(CheckRange("experts", options.experts, 1, 4096));
  ODMOE_RETURN_IF_ERROR(CheckRange("top-k", options.top_k, 1, options.experts));
  ODMOE_RETURN_IF_ERROR(CheckRange("dim", options.dim, 1, 65536));
  ODMOE_RETURN_IF_ERROR(CheckRange("ffn-dim", options.ffn_dim, 1, 65536));
  if (options.outtype == OutType::kAuto) {
    return absl::InvalidArgumentError("a toy model's outtype should be f32, f16, bf16 or q8_0");
  }
  return absl::OkStatus();
}

std::string Utf8(uint32_t code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | (code_point >> 6)),
          static_cast<char>(0x80 | (code_point & 0x3f))};
}

// GPT-2's alphabet: a printable character for each byte, so that tokens are text.
std::vector<std::string> ByteTokens() {
  std::vector<std::string> tokens;
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) ||
                           (byte >= 0xae && byte <= 0xff);
    tokens.push_back(Utf8(printable ? byte : next++));
  }
  return tokens;
}

struct ToyVocabulary {
  std::vector<std::string> tokens;
  std::vector<int64_t> types;
  std::vector<std::string> merges;
  uint32_t end_of_text = 0;
};

ToyVocabulary MakeVocabulary() {
  constexpr int64_t kNormal = 1, kControl = 3;
  ToyVocabulary vocabulary;
  vocabulary.tokens = ByteTokens();
  for (absl::string_view merge : kMerges) {
    vocabulary.merges.emplace_back(merge);
    const size_t space = merge.find(' ');
    vocabulary.tokens.push_back(absl::StrCat(merge.substr(0, space), merge.substr(space + 1)));
  }
  vocabulary.types.assign(vocabulary.tokens.size(), kNormal);
  vocabulary.end_of_text = static_cast<uint32_t>(vocabulary.tokens.size());
  for (const char* special : kSpecialTokens) {
    vocabulary.tokens.emplace_back(special);
    vocabulary.types.push_back(kControl);
  }
  return vocabulary;
}

CheckpointConfig MakeConfig(const ToyOptions& options, int64_t vocabulary_size) {
  CheckpointConfig config;
  config.vocab_size = vocabulary_size;
  config.hidden_size = options.dim;
  config.intermediate_size = 4 * int64_t{options.ffn_dim};
  config.moe_intermediate_size = options.ffn_dim;
  config.num_hidden_layers = options.layers;
  config.first_k_dense_replace = 1;
  config.num_attention_heads = kHeads;
  config.q_lora_rank = kQueryRank;
  config.kv_lora_rank = kKeyValueRank;
  config.qk_nope_head_dim = kNopeDim;
  config.qk_rope_head_dim = kRopeDim;
  config.v_head_dim = kValueDim;
  config.num_experts = options.experts;
  config.num_experts_per_tok = options.top_k;
  config.n_shared_experts = 1;
  config.max_position_embeddings = 4096;
  config.n_group = 1;
  config.topk_group = 1;
  config.scoring_func = "sigmoid";
  config.routed_scaling_factor = 2.827;
  config.norm_topk_prob = true;
  config.has_selection_bias = true;
  config.rope = {.type = "yarn",
                 .theta = 50000.0,
                 .factor = 4.0,
                 .original_max_position_embeddings = 1024,
                 .beta_fast = 32.0,
                 .beta_slow = 1.0,
                 .mscale_all_dim = 1.0};
  return config;
}

std::vector<GgufTensor> ListTensors(const CheckpointConfig& c) {
  std::vector<GgufTensor> tensors;
  const auto add = [&](std::string name, std::vector<int64_t> ne) {
    tensors.push_back({.name = std::move(name), .ne = std::move(ne)});
  };
  const int64_t dim = c.hidden_size, ffn = c.moe_intermediate_size, heads = c.num_attention_heads;
  add("token_embd.weight", {dim, c.vocab_size});
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const std::string block = absl::StrCat("blk.", layer, ".");
    add(block + "attn_norm.weight", {dim});
    add(block + "attn_q_a.weight", {dim, c.q_lora_rank});
    add(block + "attn_q_a_norm.weight", {c.q_lora_rank});
    add(block + "attn_q_b.weight",
        {c.q_lora_rank, heads * (c.qk_nope_head_dim + c.qk_rope_head_dim)});
    add(block + "attn_kv_a_mqa.weight", {dim, c.kv_lora_rank + c.qk_rope_head_dim});
    add(block + "attn_kv_a_norm.weight", {c.kv_lora_rank});
    add(block + "attn_k_b.weight", {c.qk_nope_head_dim, c.kv_lora_rank, heads});
    add(block + "attn_v_b.weight", {c.kv_lora_rank, c.v_head_dim, heads});
    add(block + "attn_output.weight", {heads * c.v_head_dim, dim});
    add(block + "ffn_norm.weight", {dim});
    if (layer < c.first_k_dense_replace) {
      add(block + "ffn_gate.weight", {dim, c.intermediate_size});
      add(block + "ffn_up.weight", {dim, c.intermediate_size});
      add(block + "ffn_down.weight", {c.intermediate_size, dim});
      continue;
    }
    add(block + "ffn_gate_inp.weight", {dim, c.num_experts});
    add(block + "exp_probs_b.bias", {c.num_experts});
    add(block + "ffn_down_exps.weight", {ffn, dim, c.num_experts});
    add(block + "ffn_gate_exps.weight", {dim, ffn, c.num_experts});
    add(block + "ffn_up_exps.weight", {dim, ffn, c.num_experts});
    add(block + "ffn_gate_shexp.weight", {dim, ffn});
    add(block + "ffn_up_shexp.weight", {dim, ffn});
    add(block + "ffn_down_shexp.weight", {ffn, dim});
  }
  add("output_norm.weight", {dim});
  add("output.weight", {dim, c.vocab_size});
  return tensors;
}

GgufHeader MakeHeader(const ToyOptions& options) {
  ToyVocabulary vocabulary = MakeVocabulary();
  const CheckpointConfig config =
      MakeConfig(options, static_cast<int64_t>(vocabulary.tokens.size()));
  GgufHeader header;
  header.tensors = ListTensors(config);
  for (GgufTensor& tensor : header.tensors) {
    tensor.dtype = TensorFormat(options.outtype, tensor.name, tensor.ne);
  }
  GgufMetadata& metadata = header.metadata;
  metadata.Set("general.architecture", GgufValue::String(kDeepSeekArchitecture));
  metadata.Set("general.type", GgufValue::String("model"));
  metadata.Set("general.name", GgufValue::String("Toy"));
  metadata.Set("general.size_label", GgufValue::String(SizeLabel(CountParameters(header.tensors))));
  AddDeepSeekKeys(config, GgufFileType(options.outtype), metadata);
  metadata.Set("general.quantization_version", GgufValue::U32(2));
  metadata.Set("tokenizer.ggml.model", GgufValue::String("gpt2"));
  metadata.Set("tokenizer.ggml.pre", GgufValue::String("gpt-2"));
  metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings(std::move(vocabulary.tokens)));
  metadata.Set("tokenizer.ggml.token_type", GgufValue::I32s(std::move(vocabulary.types)));
  metadata.Set("tokenizer.ggml.merges", GgufValue::Strings(std::move(vocabulary.merges)));
  metadata.Set("tokenizer.ggml.eos_token_id", GgufValue::U32(vocabulary.end_of_text));
  metadata.Set("tokenizer.ggml.padding_token_id", GgufValue::U32(vocabulary.end_of_text));
  metadata.Set("tokenizer.ggml.add_bos_token", GgufValue::Bool(false));
  metadata.Set("tokenizer.chat_template", GgufValue::String(kChatTemplate));
  return header;
}

// Weights that keep the hidden state's size: variance 1/columns, norms near 1, a small bias.
absl::Status WriteTensor(const GgufTensor& tensor, uint64_t seed, const Cancellation* cancellation,
                         GgufWriter& writer) {
  const bool norm = absl::EndsWith(tensor.name, "_norm.weight");
  const bool bias = absl::EndsWith(tensor.name, ".bias");
  const size_t columns = static_cast<size_t>(tensor.columns());
  const float scale = norm || bias ? 0.1f : std::sqrt(3.0f / static_cast<float>(columns));
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(tensor.dtype, tensor.columns()));
  std::vector<float> row(columns);
  std::vector<std::byte> encoded(row_bytes);
  uint64_t counter = seed;
  for (int64_t i = 0; i < tensor.rows(); ++i) {
    if (cancellation != nullptr && cancellation->cancelled()) {
      return absl::CancelledError("asked to stop");
    }
    for (float& value : row) value = (norm ? 1.0f : 0.0f) + scale * Uniform(Mix(counter++));
    ODMOE_RETURN_IF_ERROR(EncodeRow(tensor.dtype, row, encoded.data()));
    ODMOE_RETURN_IF_ERROR(writer.Append(encoded));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteToyModel(const ToyOptions& options, const std::string& path, FileSystem& fs) {
  ODMOE_RETURN_IF_ERROR(Check(options));
  if (const std::string parent = std::filesystem::path(path).parent_path().string();
      !parent.empty()) {
    ODMOE_RETURN_IF_ERROR(fs.CreateDirectories(parent));
  }
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> file, AtomicFile::Create(fs, path));
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<GgufWriter> writer,
                         GgufWriter::Create(file->file(), MakeHeader(options)));
  uint64_t tensor_seed = Mix(options.seed);
  for (const GgufTensor& tensor : writer->tensors()) {
    tensor_seed = Mix(tensor_seed);
    ODMOE_RETURN_IF_ERROR(WriteTensor(tensor, tensor_seed, options.cancellation, *writer));
  }
  ODMOE_RETURN_IF_ERROR(writer->Finish());
  return file->Commit();
}

}  // namespace odmoe
