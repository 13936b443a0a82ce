#include "tests/support/made_checkpoint.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "services/core/formats/safetensors.h"

namespace odmoe {
namespace {

const std::string kFolder = ODMOE_TEST_DATA "/checkpoints/";

// Sebastiano Vigna's splitmix64, started at a name's hash.
class Words {
 public:
  explicit Words(const std::string& name) : state_(XXH3_64bits(name.data(), name.size())) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

template <typename T>
void Append(T value, std::string& data) {
  data.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Between 2^-9 and 2^-1 in size, of either sign; "wide" ones are near 2^-67.
uint32_t FloatBits(uint64_t word, bool wide) {
  const uint32_t exponent = wide ? 60 : 118 + (static_cast<uint32_t>(word >> 60) & 7);
  return static_cast<uint32_t>(word >> 63) << 31 | exponent << 23 |
         (static_cast<uint32_t>(word) & 0x7fffff);
}

uint16_t HalfBits(uint64_t word) {
  return static_cast<uint16_t>((word >> 63) << 15 | (((word >> 60) & 7) + 6) << 10 |
                               (word & 0x3ff));
}

}  // namespace

std::string MadeTensorData(const MadeTensor& tensor) {
  std::string data;
  if (tensor.values.is_array()) {
    for (const int64_t value : tensor.values) Append(value, data);
    return data;
  }
  const bool wide = tensor.values == "wide";
  int64_t elements = 1;
  for (int64_t size : tensor.shape) elements *= size;
  Words words(tensor.name);
  for (int64_t i = 0; i < elements; ++i) {
    const uint64_t word = words.Next();
    if (tensor.dtype == "I32") Append(static_cast<uint32_t>(word), data);
    if (tensor.dtype == "F32") Append(FloatBits(word, wide), data);
    if (tensor.dtype == "BF16") Append(static_cast<uint16_t>(FloatBits(word, wide) >> 16), data);
    if (tensor.dtype == "F16") Append(HalfBits(word), data);
    if (tensor.dtype == "F8_E4M3") {  // 0x7f and 0xff are no numbers
      const uint8_t bits = static_cast<uint8_t>(word);
      Append(static_cast<uint8_t>((bits & 0x7f) == 0x7f ? bits ^ 1 : bits), data);
    }
  }
  return data;
}

MadeCheckpoint::MadeCheckpoint(const std::string& name)
    : fixture_(nlohmann::json::parse(ReadFileOrDie(kFolder + name + ".json"))) {
  config = fixture_["config"];
  for (const nlohmann::json& row : fixture_["tensors"]) {
    tensors.push_back({row[0], row[1], row[2], row.size() > 3 ? row[3] : nlohmann::json()});
  }
}

MadeTensor* MadeCheckpoint::Find(const std::string& name) {
  for (MadeTensor& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

bool MadeCheckpoint::Has(const std::string& name) const {
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const MadeTensor& tensor) { return tensor.name == name; });
}

std::string MadeCheckpoint::Write(const TemporaryDirectory& parent,
                                  const std::string& weights) const {
  const std::string folder = parent / fixture_["folder"].get<std::string>();
  std::filesystem::create_directories(folder);
  WriteFileOrDie(folder + "/config.json", config.dump());
  WriteFileOrDie(folder + "/tokenizer.json", ReadFileOrDie(kFolder + "tokenizer.json"));
  for (const auto& [name, content] : fixture_["files"].items()) {
    WriteFileOrDie(folder + "/" + name,
                   content.is_string() ? content.get<std::string>() : content.dump());
  }
  std::vector<SafetensorsTensor> header;
  std::string data;
  for (const MadeTensor& tensor : tensors) {
    const std::string bytes = MadeTensorData(tensor);
    header.push_back({.name = tensor.name,
                      .dtype = tensor.dtype,
                      .shape = tensor.shape,
                      .bytes = bytes.size()});
    data += bytes;
  }
  const auto encoded = EncodeSafetensorsHeader(header, {}, 8);
  EXPECT_TRUE(encoded.ok()) << encoded.status();
  WriteFileOrDie(folder + "/" + weights, encoded.value_or("") + data);
  return folder;
}

std::string MadeCheckpoint::WriteAdapter(const TemporaryDirectory& parent) const {
  const std::string folder = Write(parent, "adapter_model.safetensors");
  std::filesystem::rename(folder + "/config.json", folder + "/adapter_config.json");
  std::filesystem::create_directories(parent / "base");
  const MadeCheckpoint base(fixture_["base"].get<std::string>());
  WriteFileOrDie(parent / "base/config.json", base.config.dump());
  return folder;
}

}  // namespace odmoe
