#include "services/core/formats/gguf_model.h"

#include <map>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "services/core/formats/gguf_writer.h"
#include "tests/core/formats/bytes_file.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A shard of one tensor of four bytes; `number` counts from 0.
struct Shard {
  int32_t number = 0;
  int32_t count = 3;
  int32_t tensors = 3;
  std::string tensor = "t";
};

std::string Encode(const Shard& shard) {
  GgufHeader header;
  if (shard.number == 0) {
    header.metadata.Set("general.architecture", GgufValue::String("llama"));
  }
  header.metadata.Set(kGgufSplitNumberKey, GgufValue::I32(shard.number));
  header.metadata.Set(kGgufSplitCountKey, GgufValue::I32(shard.count));
  header.metadata.Set(kGgufSplitTensorsKey, GgufValue::I32(shard.tensors));
  header.tensors.push_back({.name = shard.tensor, .dtype = DType::kI8, .ne = {4}});
  EXPECT_EQ(LayOutGgufTensors(header), absl::OkStatus());
  return EncodeGgufHeader(header).value() + absl::StrCat("abc", shard.number);
}

class GgufShardsTest : public testing::Test {
 protected:
  GgufShardsTest() {
    for (int32_t i = 0; i < 3; ++i) Write({.number = i, .tensor = absl::StrCat("t", i)});
  }
  std::string Path(uint32_t number, uint32_t count = 3) const {
    return folder_ / GgufShardName{"m", number, count}.path();
  }
  void Write(const Shard& shard) {
    WriteFileOrDie(Path(static_cast<uint32_t>(shard.number) + 1), Encode(shard));
  }
  absl::Status Refusal(uint32_t number = 1) const {
    return GgufModel::Open(PosixFileSystem(), Path(number)).status();
  }
  TemporaryDirectory folder_;
};

TEST(GgufShardNameTest, IsTakenApartAndPutTogether) {
  const auto name = ParseGgufShardName("a/b-00001-of-00002-00003-of-00012.gguf");
  ASSERT_TRUE(name.has_value());
  EXPECT_EQ(name->prefix, "a/b-00001-of-00002");
  EXPECT_EQ(name->number, 3u);
  EXPECT_EQ(name->count, 12u);
  EXPECT_EQ(name->path(), "a/b-00001-of-00002-00003-of-00012.gguf");
  for (const char* other :
       {"", "m.gguf", "m-0001-of-0003.gguf", "m-00001-of-00003.ggu", "m-00001_of-00003.gguf",
        "m-0000x-of-00003.gguf", "m-+0001-of-00003.gguf", "-00001-of-00003.gguf"}) {
    EXPECT_FALSE(ParseGgufShardName(other).has_value()) << other;
  }
}

TEST_F(GgufShardsTest, AnyShardOpensTheWholeSet) {
  for (uint32_t number : {1u, 2u, 3u}) {
    const auto model = GgufModel::Open(PosixFileSystem(), Path(number));
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ((*model)->shards().size(), 3u);
    ASSERT_EQ((*model)->tensors().size(), 3u);
    EXPECT_EQ((*model)->tensors()[1].name, "t1");
    const GgufTensor* last = (*model)->Find("t2");
    std::byte bytes[4];
    ASSERT_EQ((*model)->ReadTensor(*last, 0, absl::MakeSpan(bytes)), absl::OkStatus());
    EXPECT_THAT(bytes, ElementsAre(std::byte{'a'}, std::byte{'b'}, std::byte{'c'}, std::byte{'2'}));
    EXPECT_EQ((*model)->PlaceOf(*last).file->path(), Path(3));
    // As if it had never been split.
    ASSERT_EQ((*model)->metadata().entries().size(), 1u);
    EXPECT_EQ(*(*model)->metadata().GetString("general.architecture"), "llama");
  }
}

TEST_F(GgufShardsTest, AFileThatIsNotPartOfASetKeepsItsKeys) {
  for (int32_t count : {0, 1}) {
    WriteFileOrDie(folder_ / "alone.gguf", Encode({.count = count, .tensors = 9}));
    const auto model = GgufModel::Open(PosixFileSystem(), folder_ / "alone.gguf");
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ((*model)->metadata().entries().size(), 4u);
  }
}

TEST_F(GgufShardsTest, AMissingShardIsNamed) {
  ASSERT_EQ(PosixFileSystem().Remove(Path(2)), absl::OkStatus());
  EXPECT_EQ(Refusal().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Refusal().message()), HasSubstr("shard 2 of 3 is missing: " + Path(2)));
}

TEST_F(GgufShardsTest, AShardUnderANameThatTellsNothingIsRefused) {
  WriteFileOrDie(folder_ / "renamed.gguf", Encode({.number = 1}));
  const absl::Status status =
      GgufModel::Open(PosixFileSystem(), folder_ / "renamed.gguf").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("-00002-of-00003.gguf"));
}

TEST_F(GgufShardsTest, ShardsThatLieAreRefused) {
  struct Lie {
    uint32_t at;  // the file that is replaced
    Shard shard;
    const char* message;
  };
  const Lie lies[] = {
      {2, {.number = 2, .tensor = "t1"}, "its name says shard 2 of 3, its keys split.no 2"},
      {2, {.number = 1, .count = 4, .tensor = "t1"}, "split.count 4"},
      {3, {.number = 2, .count = 1, .tensor = "t2"}, "split.count 1"},
      {1, {.number = 0, .count = 65535, .tensor = "t0"}, "at most 4096 shards"},
      {2, {.number = -1, .tensor = "t1"}, "split.no"},
      {2, {.number = 1, .tensors = 4, .tensor = "t1"}, "split.tensors.count is 4"},
      {3, {.number = 2, .tensor = "t0"}, "'t0' is in another shard too"},
  };
  for (const Lie& lie : lies) {
    const std::string good = ReadFileOrDie(Path(lie.at));
    WriteFileOrDie(Path(lie.at), Encode(lie.shard));
    EXPECT_EQ(Refusal().code(), absl::StatusCode::kDataLoss) << Refusal();
    EXPECT_THAT(std::string(Refusal().message()), HasSubstr(lie.message));
    WriteFileOrDie(Path(lie.at), good);
  }
  for (int32_t i = 0; i < 3; ++i) {
    Write({.number = i, .tensors = 5, .tensor = absl::StrCat("t", i)});
  }
  EXPECT_THAT(std::string(Refusal().message()), HasSubstr("split.tensors.count is 5"));
}

TEST_F(GgufShardsTest, WhatMergesThemKnowsTheSize) {
  const auto model = GgufModel::Open(PosixFileSystem(), Path(1));
  ASSERT_TRUE(model.ok()) << model.status();
  GgufHeader header{.metadata = (*model)->metadata(), .tensors = (*model)->tensors()};
  ASSERT_EQ(LayOutGgufTensors(header), absl::OkStatus());
  EXPECT_EQ(*(*model)->MergedBytes(), EncodeGgufHeader(header)->size() + 3 * 32);
  EXPECT_TRUE((*model)->ReadPadding()->empty());
}

TEST(GgufModelTest, KeepsPaddingThatIsNotZero) {
  TemporaryDirectory folder;
  GgufHeader header;
  for (const char* name : {"a", "b"}) {
    header.tensors.push_back({.name = name, .dtype = DType::kI8, .ne = {4}});
  }
  ASSERT_EQ(LayOutGgufTensors(header), absl::OkStatus());
  std::string bytes = EncodeGgufHeader(header).value();
  const size_t data = bytes.size();
  bytes[data - 1] = 'h';                       // behind the header
  bytes += "aaaa" + std::string(28, '\0');
  bytes[data + 10] = 'x';                      // between the tensors
  bytes[data + 12] = 'y';
  bytes += "bbbb";
  bytes += std::string(5, '\0') + "end";       // behind the last
  WriteFileOrDie(folder / "m.gguf", bytes);
  const auto model = GgufModel::Open(PosixFileSystem(), folder / "m.gguf");
  ASSERT_TRUE(model.ok()) << model.status();
  const auto padding = (*model)->ReadPadding();
  ASSERT_TRUE(padding.ok()) << padding.status();
  ASSERT_EQ(padding->size(), 3u);
  EXPECT_EQ((*padding)[0].bytes, "h");
  EXPECT_EQ((*padding)[1].offset, data + 10);
  EXPECT_EQ((*padding)[1].bytes, std::string("x\0y", 3));
  EXPECT_EQ((*padding)[2].bytes, "end");

  WriteFileOrDie(folder / "m.gguf", bytes + std::string(2 << 20, 'z'));
  EXPECT_EQ((*GgufModel::Open(PosixFileSystem(), folder / "m.gguf"))->ReadPadding().status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(GgufModelTest, ReadsNoMoreElementsThanAnyModelHas) {
  ByteString bytes;
  bytes.AddRaw("GGUF").Add(uint32_t{3}).Add(uint64_t{0}).Add(uint64_t{1}).AddString("k");
  bytes.Add(int32_t{9}).Add(int32_t{0}).Add(kMaxGgufElements + 1);
  bytes.AddRaw(std::string(kMaxGgufElements + 1, '\0'));
  const absl::Status status = GgufReader::Open(BytesFile(bytes.bytes())).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 8388608 are read"));
}

}  // namespace
}  // namespace odmoe
