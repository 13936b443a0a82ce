#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "converter/quantize/importance_matrix.h"
#include "converter/quantize/importance_sums.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/formats/gguf_writer.h"
#include "tests/core/formats/bytes_file.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The legacy form of one tensor of `values`, from `calls` calls.
std::string LegacyBytes(const std::vector<float>& values, int32_t calls) {
  ByteString bytes;
  const std::string name = "blk.0.attn_q.weight";
  bytes.Add<int32_t>(1).Add<int32_t>(name.size()).AddRaw(name);
  bytes.Add<int32_t>(calls).Add<int32_t>(values.size());
  for (const float value : values) bytes.Add(value);
  return bytes.bytes();
}

// The GGUF form of one tensor, with whatever is wrong with it.
struct GgufCase {
  std::vector<float> sums = {8, 18, 6, 9};
  std::vector<float> counts = {2, 3};
  std::string sums_name = "blk.0.ffn_up_exps.weight.in_sum2";
  std::string counts_name = "blk.0.ffn_up_exps.weight.counts";
  DType dtype = DType::kF32;
  std::string type = "imatrix";
  bool datasets = true;
  bool chunk_size = true;
};

std::string GgufBytes(const GgufCase& c) {
  TemporaryDirectory folder;
  GgufHeader header;
  header.metadata.Set("general.type", GgufValue::String(c.type));
  if (c.datasets) header.metadata.Set(kImportanceDatasetsKey, GgufValue::Strings({"a", "b"}));
  header.metadata.Set(kImportanceChunkCountKey, GgufValue::U32(7));
  if (c.chunk_size) header.metadata.Set(kImportanceChunkSizeKey, GgufValue::U32(512));
  header.tensors.resize(2);
  header.tensors[0].name = c.sums_name;
  header.tensors[0].ne = {static_cast<int64_t>(c.sums.size())};
  header.tensors[0].dtype = c.dtype;
  header.tensors[1].name = c.counts_name;
  header.tensors[1].ne = {1, static_cast<int64_t>(c.counts.size())};
  auto file = *PosixFileSystem().OpenForWrite(folder / "matrix");
  auto writer = GgufWriter::Create(*file, header);
  EXPECT_TRUE(writer.ok()) << writer.status();
  for (const auto* values : {&c.sums, &c.counts}) {
    const auto bytes = absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values->data()),
                                           values->size() * sizeof(float));
    EXPECT_TRUE(
        (*writer)->Append(bytes.first((*writer)->tensors()[values == &c.counts].bytes)).ok());
  }
  EXPECT_TRUE((*writer)->Finish().ok() && file->Close().ok());
  return ReadFileOrDie(folder / "matrix");
}

absl::Status OpenStatus(const std::string& bytes) {
  return ImportanceMatrix::Open(BytesFile(bytes)).status();
}

TEST(ImportanceMatrixTest, ReadsMeansOfEachExpert) {
  const auto matrix = ImportanceMatrix::Open(BytesFile(GgufBytes({})));
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  const std::string name = "blk.0.ffn_up_exps.weight";
  EXPECT_THAT(*(*matrix)->ForTensor(name, 2, 2, 0), ElementsAre(4, 9));
  EXPECT_THAT(*(*matrix)->ForTensor(name, 2, 2, 1), ElementsAre(2, 3));
  // One matrix of four columns has the same values: the file does not say how they are stacked.
  EXPECT_THAT(*(*matrix)->ForTensor(name, 4, 1, 0), ElementsAre(4, 9, 2, 3));
  EXPECT_THAT((*matrix)->names(), ElementsAre(name));
  EXPECT_THAT((*matrix)->datasets(), ElementsAre("a", "b"));
  EXPECT_EQ((*matrix)->chunk_count(), 7);
  EXPECT_EQ((*matrix)->chunk_size(), 512);
  EXPECT_FALSE((*matrix)->legacy());
  EXPECT_THAT(*(*matrix)->ForTensor("blk.1.ffn_up_exps.weight", 2, 2, 0), IsEmpty());
}

TEST(ImportanceMatrixTest, AnExpertNobodyChoseCountsEverywhereTheSame) {
  const auto matrix = ImportanceMatrix::Open(BytesFile(GgufBytes({.counts = {2, 0}})));
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_THAT(*(*matrix)->ForTensor("blk.0.ffn_up_exps.weight", 2, 2, 1), ElementsAre(1, 1));
}

TEST(ImportanceMatrixTest, ReadsTheLegacyForm) {
  std::string bytes = LegacyBytes({4, 9}, 2);
  auto matrix = ImportanceMatrix::Open(BytesFile(bytes));
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_THAT(*(*matrix)->ForTensor("blk.0.attn_q.weight", 2, 1, 0), ElementsAre(2, 4.5));
  EXPECT_TRUE((*matrix)->legacy());
  EXPECT_EQ((*matrix)->chunk_count(), 0);

  ByteString tail;
  tail.Add<int32_t>(11).Add<int32_t>(4).AddRaw("wiki");
  matrix = ImportanceMatrix::Open(BytesFile(bytes + tail.bytes()));
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ((*matrix)->chunk_count(), 11);
  EXPECT_THAT((*matrix)->datasets(), ElementsAre("wiki"));
  // Without calls the values are what they are.
  EXPECT_THAT(*(*ImportanceMatrix::Open(BytesFile(LegacyBytes({4, 9}, 0))))
                   ->ForTensor("blk.0.attn_q.weight", 2, 1, 0),
              ElementsAre(4, 9));
}

TEST(ImportanceMatrixTest, NamesATensorOfAnotherSize) {
  const auto matrix = ImportanceMatrix::Open(BytesFile(LegacyBytes({4, 9}, 2)));
  const absl::Status status = (*matrix)->ForTensor("blk.0.attn_q.weight", 4, 1, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("2 values for blk.0.attn_q.weight"));
  EXPECT_FALSE((*matrix)->ForTensor("blk.0.attn_q.weight", 1, 2, 2).ok());
  EXPECT_FALSE((*matrix)->ForTensor("blk.0.attn_q.weight", 2, 1, -1).ok());
}

TEST(ImportanceMatrixTest, RefusesValuesThatAreNone) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {kNan, -1.0f, std::numeric_limits<float>::infinity()}) {
    const auto matrix = ImportanceMatrix::Open(BytesFile(LegacyBytes({4, bad}, 2)));
    const absl::Status status = (*matrix)->ForTensor("blk.0.attn_q.weight", 2, 1, 0).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << bad;
    EXPECT_EQ(OpenStatus(GgufBytes({.counts = {2, bad}})).code(), absl::StatusCode::kDataLoss)
        << bad;
  }
}

TEST(ImportanceMatrixTest, RefusesFilesThatContradictThemselves) {
  const struct {
    GgufCase file;
    absl::StatusCode code;
    const char* message;
  } cases[] = {
      {{.type = "model", .datasets = false}, absl::StatusCode::kInvalidArgument, "\"model\""},
      {{.datasets = false}, absl::StatusCode::kInvalidArgument, "imatrix.datasets"},
      {{.chunk_size = false}, absl::StatusCode::kInvalidArgument, "imatrix.chunk_size"},
      {{.counts_name = "blk.1.ffn_up_exps.weight.counts"}, absl::StatusCode::kDataLoss, "but no"},
      {{.sums_name = "other"}, absl::StatusCode::kDataLoss, "but no"},
      {{.sums_name = "other", .counts_name = "one"}, absl::StatusCode::kDataLoss, "no tensor"},
      {{.dtype = DType::kF16}, absl::StatusCode::kDataLoss, "expected f32"},
      {{.counts = {1, 2, 3}}, absl::StatusCode::kDataLoss, "4 sums and 3 counts"},
  };
  for (const auto& c : cases) {
    const absl::Status status = OpenStatus(GgufBytes(c.file));
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
  const std::string legacy = LegacyBytes({4, 9}, 2);
  for (size_t cut = 0; cut < legacy.size(); ++cut) {
    EXPECT_FALSE(OpenStatus(legacy.substr(0, cut)).ok()) << cut;
  }
  EXPECT_THAT(std::string(OpenStatus("some text that is no matrix").message()),
              HasSubstr("neither a GGUF file nor"));
  ByteString twice;
  twice.Add<int32_t>(2).AddRaw(legacy.substr(4)).AddRaw(legacy.substr(4));
  EXPECT_THAT(std::string(OpenStatus(twice.bytes()).message()), HasSubstr("there twice"));
}

TEST(ImportanceSumsTest, WritesWhatTheReaderAndTheReferenceRead) {
  const float first[] = {1, 2};
  const float second[] = {3, 4};
  const float* const rows[] = {first, second};
  ImportanceSums sums;
  ProductInput input;
  input.rows = rows;
  input.columns = 2;
  input.tensor = "blk.0.attn_q.weight";
  sums.OnInput(input);
  sums.OnInput(input);
  input.tensor = "output.weight";  // not asked for
  sums.OnInput(input);
  input.tensor = "blk.0.attn_k_b.weight";
  input.matrices = 2;
  for (input.matrix = 0; input.matrix < 2; ++input.matrix) sums.OnInput(input);
  input.tensor = "blk.0.ffn_up_exps.weight";
  input.routed = true;
  input.matrices = 3;
  input.matrix = 2;
  sums.OnInput(input);
  ASSERT_TRUE(sums.status().ok());
  EXPECT_THAT(sums.UnseenExperts(), ElementsAre(std::pair("blk.0.ffn_up_exps.weight", 2)));

  TemporaryDirectory folder;
  const std::string path = folder / "out.gguf";
  ASSERT_TRUE(sums.Write(PosixFileSystem(), path, {{"text"}, 2, 16}).ok());
  const auto matrix = ImportanceMatrix::Open(PosixFileSystem(), path);
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_THAT((*matrix)->names(), ElementsAre("blk.0.attn_k_b.weight", "blk.0.attn_q.weight",
                                              "blk.0.ffn_up_exps.weight"));
  EXPECT_THAT(*(*matrix)->ForTensor("blk.0.attn_q.weight", 2, 1, 0), ElementsAre(5, 10));
  EXPECT_THAT(*(*matrix)->ForTensor("blk.0.attn_k_b.weight", 2, 2, 1), ElementsAre(5, 10));
  EXPECT_THAT(*(*matrix)->ForTensor("blk.0.ffn_up_exps.weight", 2, 3, 2), ElementsAre(5, 10));
  EXPECT_THAT(*(*matrix)->ForTensor("blk.0.ffn_up_exps.weight", 2, 3, 0), ElementsAre(1, 1));
  EXPECT_THAT(*(*matrix)->counts("blk.0.attn_q.weight"), ElementsAre(4));
  EXPECT_THAT(*(*matrix)->counts("blk.0.attn_k_b.weight"), ElementsAre(2));
  EXPECT_EQ((*matrix)->chunk_count(), 2);

  // The shapes ggml gives them.
  const auto reader = GgufReader::Open(*PosixFileSystem().OpenForRead(path));
  EXPECT_THAT((*reader)->Find("blk.0.attn_k_b.weight.in_sum2")->ne, ElementsAre(4));
  EXPECT_THAT((*reader)->Find("blk.0.attn_k_b.weight.counts")->ne, ElementsAre(1));
  EXPECT_THAT((*reader)->Find("blk.0.ffn_up_exps.weight.in_sum2")->ne, ElementsAre(2, 3));
  EXPECT_THAT((*reader)->Find("blk.0.ffn_up_exps.weight.counts")->ne, ElementsAre(1, 3));
}

TEST(ImportanceSumsTest, RefusesInputsThatAreNoNumbersAndAnEmptyMatrix) {
  TemporaryDirectory folder;
  EXPECT_EQ(ImportanceSums().Write(PosixFileSystem(), folder / "out.gguf", {}).code(),
            absl::StatusCode::kFailedPrecondition);
  ImportanceSums sums(true);
  const float x[] = {1, std::numeric_limits<float>::quiet_NaN()};
  ProductInput input;
  input.tensor = "output.weight";
  const float* const rows[] = {x};
  input.rows = rows;
  input.columns = 2;
  sums.OnInput(input);
  EXPECT_EQ(sums.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(sums.Write(PosixFileSystem(), folder / "out.gguf", {}).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_FALSE(PosixFileSystem().OpenForRead(folder / "out.gguf").ok());
}

}  // namespace
}  // namespace odmoe
