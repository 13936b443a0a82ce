#include "tests/inference/model/reference_model.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/io/file.h"

namespace odmoe {
namespace {

using Vector = std::vector<double>;

void AddTo(Vector& sum, const Vector& x, double factor = 1.0) {
  for (size_t i = 0; i < x.size(); ++i) sum[i] += factor * x[i];
}

double DotOf(const Vector& a, const Vector& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void Softmax(Vector& x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0.0;
  for (double& v : x) sum += v = std::exp(v - max);
  for (double& v : x) v /= sum;
}

Vector Rotated(Vector x, int64_t position) {
  const auto n = static_cast<int>(x.size());
  for (int i = 0; i < n; i += 2) {
    const double angle =
        static_cast<double>(position) * std::pow(double{ReferenceModel::kRopeBase}, -1.0 * i / n);
    const double a = x[i], b = x[i + 1];
    x[i] = a * std::cos(angle) - b * std::sin(angle);
    x[i + 1] = a * std::sin(angle) + b * std::cos(angle);
  }
  return x;
}

}  // namespace

ReferenceModel::ReferenceModel(const Variant& variant) : variant_(variant) {
  Add("token_embd.weight", {kDim, kVocabulary});
  Add("output_norm.weight", {kDim});
  if (!variant.tied) Add("output.weight", {kDim, kVocabulary});
  const int queries = kHeads * (kNope + kRope);
  for (int layer = 0; layer < kLayers; ++layer) {
    const std::string b = absl::StrCat("blk.", layer, ".");
    Add(b + "attn_norm.weight", {kDim});
    if (variant.q_lora == 0) {
      Add(b + "attn_q.weight", {kDim, queries});
    } else {
      Add(b + "attn_q_a.weight", {kDim, variant.q_lora});
      Add(b + "attn_q_a_norm.weight", {variant.q_lora});
      Add(b + "attn_q_b.weight", {variant.q_lora, queries});
    }
    Add(b + "attn_kv_a_mqa.weight", {kDim, kKvLora + kRope});
    Add(b + "attn_kv_a_norm.weight", {kKvLora});
    Add(b + "attn_k_b.weight", {kNope, kKvLora, kHeads});
    Add(b + "attn_v_b.weight", {kKvLora, kValue, kHeads});
    Add(b + "attn_output.weight", {kHeads * kValue, kDim});
    Add(b + "ffn_norm.weight", {kDim});
    const bool dense = layer < variant.dense_layers;
    if (!dense) {
      Add(b + "ffn_gate_inp.weight", {kDim, kExperts});
      if (variant.bias) Add(b + "exp_probs_b.bias", {kExperts});
    }
    for (const char* part : {"gate", "up", "down"}) {
      const auto shape = [&](int64_t ffn) {
        return part == std::string("down") ? std::vector<int64_t>{ffn, kDim}
                                           : std::vector<int64_t>{kDim, ffn};
      };
      const std::string name = absl::StrCat(b, "ffn_", part);
      if (dense) {
        Add(name + ".weight", shape(kDenseFfn));
        continue;
      }
      std::vector<int64_t> stacked = shape(kExpertFfn);
      stacked.push_back(kExperts);
      Add(name + "_exps.weight", stacked);
      if (variant.shared > 0) Add(name + "_shexp.weight", shape(variant.shared * kExpertFfn));
    }
  }
}

void ReferenceModel::Add(const std::string& name, std::vector<int64_t> ne) {
  Tensor tensor;
  int64_t size = 1;
  for (const int64_t n : ne) size *= n;
  std::mt19937 random(static_cast<uint32_t>(order_.size()) + 1);
  std::normal_distribution<float> normal(0.0f, 1.5f / std::sqrt(static_cast<float>(ne[0])));
  for (int64_t i = 0; i < size; ++i) {
    const float value = normal(random);
    tensor.values.push_back(ne.size() == 1 && name.find("norm") != std::string::npos
                                ? 1.0f + value
                                : value);
  }
  tensor.ne = std::move(ne);
  tensors_[name] = std::move(tensor);
  order_.push_back(name);
}

void ReferenceModel::WriteGguf(const std::string& path) const {
  GgufHeader header;
  GgufMetadata& m = header.metadata;
  m.Set("general.architecture", GgufValue::String("deepseek2"));
  const auto u32 = [&](const char* key, uint32_t value) {
    m.Set(absl::StrCat("deepseek2.", key), GgufValue::U32(value));
  };
  const auto f32 = [&](const char* key, float value) {
    m.Set(absl::StrCat("deepseek2.", key), GgufValue::F32(value));
  };
  u32("block_count", kLayers);
  u32("context_length", kContext);
  u32("vocab_size", kVocabulary);
  u32("embedding_length", kDim);
  u32("feed_forward_length", kDenseFfn);
  u32("attention.head_count", kHeads);
  u32("attention.head_count_kv", 1);
  f32("attention.layer_norm_rms_epsilon", kEpsilon);
  if (variant_.q_lora > 0) u32("attention.q_lora_rank", variant_.q_lora);
  u32("attention.kv_lora_rank", kKvLora);
  u32("attention.key_length", kKvLora + kRope);
  u32("attention.value_length", kKvLora);
  u32("attention.key_length_mla", kNope + kRope);
  u32("attention.value_length_mla", kValue);
  u32("rope.dimension_count", kRope);
  f32("rope.freq_base", kRopeBase);
  u32("leading_dense_block_count", variant_.dense_layers);
  u32("expert_count", kExperts);
  u32("expert_used_count", kUsed);
  u32("expert_shared_count", variant_.shared);
  u32("expert_feed_forward_length", kExpertFfn);
  u32("expert_group_count", variant_.groups);
  u32("expert_group_used_count", variant_.groups_used);
  u32("expert_gating_func", variant_.sigmoid ? 2 : 1);
  f32("expert_weights_scale", variant_.scale);
  m.Set("deepseek2.expert_weights_norm", GgufValue::Bool(variant_.normalize));
  for (const std::string& name : order_) {
    header.tensors.push_back({.name = name, .dtype = DType::kF32, .ne = tensors_.at(name).ne});
  }
  auto file = PosixFileSystem().OpenForWrite(path);
  ASSERT_TRUE(file.ok()) << file.status();
  auto writer = GgufWriter::Create(**file, std::move(header));
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (const std::string& name : order_) {
    const std::vector<float>& values = tensors_.at(name).values;
    const absl::Status status = (*writer)->Append(
        {reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(float)});
    ASSERT_TRUE(status.ok()) << status;
  }
  ASSERT_TRUE((*writer)->Finish().ok());
  ASSERT_TRUE((*file)->Close().ok());
}

Vector ReferenceModel::Times(const std::string& name, const Vector& x, int64_t first,
                             int64_t rows) const {
  const Tensor& tensor = tensors_.at(name);
  const int64_t columns = tensor.ne[0];
  EXPECT_EQ(static_cast<int64_t>(x.size()), columns) << name;
  if (rows < 0) rows = static_cast<int64_t>(tensor.values.size()) / columns;
  Vector out(rows);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) out[r] += tensor.values[(first + r) * columns + c] * x[c];
  }
  return out;
}

Vector ReferenceModel::Norm(const std::string& name, const Vector& x) const {
  const double scale =
      1.0 / std::sqrt(DotOf(x, x) / static_cast<double>(x.size()) + double{kEpsilon});
  Vector out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * tensors_.at(name).values[i];
  return out;
}

// One network of a stack; expert -1: the tensors are not stacked.
Vector ReferenceModel::Gated(const std::string& prefix, const std::string& suffix, const Vector& x,
                             int expert) const {
  const int64_t inner = expert < 0 ? -1 : kExpertFfn;
  const int64_t outer = expert < 0 ? -1 : kDim;
  const int64_t n = std::max(expert, 0);
  Vector gate = Times(prefix + "ffn_gate" + suffix, x, n * kExpertFfn, inner);
  const Vector up = Times(prefix + "ffn_up" + suffix, x, n * kExpertFfn, inner);
  for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
  return Times(prefix + "ffn_down" + suffix, gate, n * kDim, outer);
}

Vector ReferenceModel::Attention(const std::string& b, std::vector<Vector>& latents,
                                 std::vector<Vector>& rope_keys, const Vector& x) const {
  const auto position = static_cast<int64_t>(latents.size());
  const Vector q = variant_.q_lora == 0
                       ? Times(b + "attn_q.weight", x)
                       : Times(b + "attn_q_b.weight",
                               Norm(b + "attn_q_a_norm.weight", Times(b + "attn_q_a.weight", x)));
  const Vector kv = Times(b + "attn_kv_a_mqa.weight", x);
  latents.push_back(Norm(b + "attn_kv_a_norm.weight", Vector(kv.begin(), kv.begin() + kKvLora)));
  rope_keys.push_back(Rotated(Vector(kv.begin() + kKvLora, kv.end()), position));

  const std::vector<float>& k_b = tensors_.at(b + "attn_k_b.weight").values;
  Vector values;
  for (int h = 0; h < kHeads; ++h) {
    const auto begin = q.begin() + h * (kNope + kRope);
    const Vector q_nope(begin, begin + kNope);
    const Vector q_rope = Rotated(Vector(begin + kNope, begin + kNope + kRope), position);
    Vector scores;
    for (size_t t = 0; t < latents.size(); ++t) {
      Vector key(kNope);
      for (int i = 0; i < kNope; ++i) {
        for (int j = 0; j < kKvLora; ++j) {
          key[i] += k_b[(h * kKvLora + j) * kNope + i] * latents[t][j];
        }
      }
      scores.push_back((DotOf(q_nope, key) + DotOf(q_rope, rope_keys[t])) /
                       std::sqrt(double{kNope + kRope}));
    }
    Softmax(scores);
    Vector mixed(kValue);
    for (size_t t = 0; t < latents.size(); ++t) {
      AddTo(mixed, Times(b + "attn_v_b.weight", latents[t], h * kValue, kValue), scores[t]);
    }
    values.insert(values.end(), mixed.begin(), mixed.end());
  }
  return Times(b + "attn_output.weight", values);
}

std::vector<int> ReferenceModel::Choose(const Vector& scores, const std::string& b) const {
  Vector choice = scores;
  if (variant_.bias) {
    for (int e = 0; e < kExperts; ++e) choice[e] += tensors_.at(b + "exp_probs_b.bias").values[e];
  }
  const int size = kExperts / variant_.groups;
  std::vector<std::pair<double, int>> groups;
  for (int g = 0; g < variant_.groups; ++g) {
    Vector members(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(members.rbegin(), members.rend());
    groups.push_back({variant_.bias && size > 1 ? members[0] + members[1] : members[0], g});
  }
  std::sort(groups.rbegin(), groups.rend());
  std::vector<std::pair<double, int>> candidates;
  for (int k = 0; k < variant_.groups_used; ++k) {
    for (int e = groups[k].second * size; e < (groups[k].second + 1) * size; ++e) {
      candidates.push_back({choice[e], e});
    }
  }
  std::sort(candidates.rbegin(), candidates.rend());
  std::vector<int> chosen;
  for (int k = 0; k < kUsed; ++k) chosen.push_back(candidates[k].second);
  return chosen;
}

Vector ReferenceModel::Experts(const std::string& b, const Vector& x) const {
  Vector scores = Times(b + "ffn_gate_inp.weight", x);
  if (variant_.sigmoid) {
    for (double& s : scores) s = 1.0 / (1.0 + std::exp(-s));
  } else {
    Softmax(scores);
  }
  const std::vector<int> chosen = Choose(scores, b);
  double sum = 0.0;
  for (const int e : chosen) sum += scores[e];
  Vector out(kDim);
  for (const int e : chosen) {
    const double weight = variant_.scale * scores[e] / (variant_.normalize ? sum : 1.0);
    AddTo(out, Gated(b, "_exps.weight", x, e), weight);
  }
  if (variant_.shared > 0) AddTo(out, Gated(b, "_shexp.weight", x, -1));
  return out;
}

std::vector<Vector> ReferenceModel::Logits(const std::vector<TokenId>& tokens) const {
  std::vector<std::vector<Vector>> latents(kLayers), rope_keys(kLayers);
  std::vector<Vector> logits;
  for (const TokenId token : tokens) {
    const auto row = tensors_.at("token_embd.weight").values.begin() + token * kDim;
    Vector hidden(row, row + kDim);
    for (int layer = 0; layer < kLayers; ++layer) {
      const std::string b = absl::StrCat("blk.", layer, ".");
      AddTo(hidden, Attention(b, latents[layer], rope_keys[layer],
                              Norm(b + "attn_norm.weight", hidden)));
      const Vector x = Norm(b + "ffn_norm.weight", hidden);
      AddTo(hidden, layer < variant_.dense_layers ? Gated(b, ".weight", x, -1) : Experts(b, x));
    }
    logits.push_back(Times(variant_.tied ? "token_embd.weight" : "output.weight",
                           Norm("output_norm.weight", hidden)));
  }
  return logits;
}

}  // namespace odmoe
