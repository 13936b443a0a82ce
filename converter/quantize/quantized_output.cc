#include "converter/quantize/quantized_output.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "converter/gguf_shards.h"
#include "converter/huggingface/to_gguf.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

// What an interruption costs at most, and little enough for workers to share one huge tensor.
constexpr int64_t kItemElements = int64_t{1} << 24;
// Values of keys that llama.cpp's quantizer sets are cut to its buffer.
constexpr size_t kMaxKeyTextBytes = 127;

// A GGUF file of which only the header is known: zeros elsewhere. For laying out what is made from
// it, which reads its header and padding.
class UnwrittenGguf : public RandomAccessFile {
 public:
  UnwrittenGguf(std::string path, std::string header, uint64_t bytes)
      : path_(std::move(path)), header_(std::move(header)), bytes_(bytes) {}

  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const override {
    if (offset > bytes_ || out.size() > bytes_ - offset) {
      return absl::OutOfRangeError(absl::StrCat(path_, ": cannot read ", out.size(),
                                                " bytes at offset ", offset, " of ", bytes_));
    }
    std::fill(out.begin(), out.end(), std::byte{0});
    if (offset >= header_.size()) return absl::OkStatus();
    std::memcpy(out.data(), header_.data() + offset,
                std::min<uint64_t>(out.size(), header_.size() - offset));
    return absl::OkStatus();
  }
  uint64_t size() const override { return bytes_; }
  const std::string& path() const override { return path_; }

 private:
  const std::string path_;
  const std::string header_;
  const uint64_t bytes_;
};

// The reference's order: by layer, those of none first, then by name.
bool Precedes(const GgufTensor* a, const GgufTensor* b) {
  const int32_t a_layer = LayerOfTensor(a->name), b_layer = LayerOfTensor(b->name);
  return a_layer != b_layer ? a_layer < b_layer : a->name < b->name;
}

// Sets a key as the reference does: behind all others, wherever it was.
void MoveToEnd(GgufMetadata& metadata, const std::string& key, GgufValue value) {
  GgufMetadata moved;
  for (const auto& [name, kept] : metadata.entries()) {
    if (name != key) moved.Append(name, kept);
  }
  moved.Append(key, std::move(value));
  metadata = std::move(moved);
}

}  // namespace

absl::StatusOr<std::unique_ptr<QuantizedOutput>> QuantizedOutput::Plan(
    const GgufModel& source, QuantizedOutputOptions options) {
  std::unique_ptr<QuantizedOutput> output(new QuantizedOutput(source, std::move(options)));
  output->OrderTensors();
  ODMOE_RETURN_IF_ERROR(output->ChooseFormats());
  output->SetKeys();
  ODMOE_RETURN_IF_ERROR(LayOutGgufTensors(output->header_));
  ODMOE_RETURN_IF_ERROR(absl::EndsWith(output->options_.path, ".gguf") ? output->PlanFile()
                                                                       : output->PlanDirectory());
  return output;
}

void QuantizedOutput::OrderTensors() {
  if (options_.keep_split) {
    for (const auto& shard : source_.shards()) shard_counts_.push_back(shard->tensors().size());
  }
  for (const GgufTensor& tensor : source_.tensors()) sources_.push_back(&tensor);
  if (!options_.keep_split) std::sort(sources_.begin(), sources_.end(), Precedes);
  for (const GgufTensor* tensor : sources_) {
    GgufTensor& ordered = header_.tensors.emplace_back(*tensor);
    while (ordered.ne.size() > 1 && ordered.ne.back() == 1) ordered.ne.pop_back();
  }
}

absl::Status QuantizedOutput::ChooseFormats() {
  const ImportanceMatrix* importance = options_.importance;
  ODMOE_ASSIGN_OR_RETURN(const std::vector<MixChoice> choices,
                         ChooseMixFormats(options_.mix, options_.tensors,
                                          importance != nullptr && importance->size() > 0,
                                          source_.metadata(), header_.tensors));
  for (size_t i = 0; i < choices.size(); ++i) {
    GgufTensor& tensor = header_.tensors[i];
    if (choices[i].dtype == tensor.dtype) continue;
    if (tensor.columns() > kMaxQuantizedColumns) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor.name, "' has rows of ",
                                                     tensor.columns(), ", at most ",
                                                     kMaxQuantizedColumns, " can be quantized"));
    }
    ODMOE_RETURN_IF_ERROR(CheckImportance(tensor, choices[i]));
    tensor.dtype = choices[i].dtype;
    fallback_count_ += choices[i].fell_back;
  }
  return absl::OkStatus();
}

absl::Status QuantizedOutput::CheckImportance(const GgufTensor& tensor,
                                              const MixChoice& choice) const {
  const ImportanceMatrix* importance = options_.importance;
  const int64_t matrix_rows = tensor.ne.size() > 1 ? tensor.ne[1] : 1;
  std::vector<float> first;
  if (importance != nullptr) {
    ODMOE_ASSIGN_OR_RETURN(first, importance->ForTensor(tensor.name, tensor.columns(),
                                                        tensor.rows() / matrix_rows, 0));
  }
  if (!first.empty() || !choice.needs_importance) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "tensor '", tensor.name, "' as ", Info(choice.dtype).name, " of ", options_.mix.name,
      " needs an importance matrix, without which it comes out as garbage; ",
      importance != nullptr ? absl::StrCat(importance->path(), " does not have the tensor")
                            : "compute one (odmoe imatrix) and name it"));
}

void QuantizedOutput::SetKeys() {
  header_.metadata = source_.metadata();
  const auto set = [this](const std::string& key, GgufValue value) {
    MoveToEnd(header_.metadata, key, std::move(value));
  };
  set("general.quantization_version", GgufValue::U32(kQuantizationVersion));
  set("general.file_type", GgufValue::U32(static_cast<uint32_t>(options_.mix.mix)));
  const ImportanceMatrix* importance = options_.importance;
  if (importance == nullptr || importance->size() == 0) return;
  const auto set_text = [&](const std::string& key, const std::string& text) {
    set(key, GgufValue::String(text.substr(0, kMaxKeyTextBytes)));
  };
  set_text("quantize.imatrix.file", importance->path());
  if (!importance->datasets().empty()) {
    set_text("quantize.imatrix.dataset", importance->datasets()[0]);
  }
  set("quantize.imatrix.entries_count", GgufValue::U32(static_cast<uint32_t>(importance->size())));
  if (importance->chunk_count() > 0) {
    set("quantize.imatrix.chunks_count",
        GgufValue::U32(static_cast<uint32_t>(importance->chunk_count())));
  }
}

absl::Status QuantizedOutput::PlanFile() {
  const std::vector<size_t> counts =
      options_.keep_split ? shard_counts_
                          : CountTensorsBySize(header_.tensors, options_.split_max_bytes);
  ODMOE_ASSIGN_OR_RETURN(const std::vector<GgufShard> shards,
                         CutIntoShards(header_, counts, options_.path));
  for (const GgufShard& shard : shards) {
    ODMOE_ASSIGN_OR_RETURN(OutputFile file, PlanGgufFile(shard));
    const uint64_t data_offset = file.header->size();
    for (size_t i = 0; i < shard.header.tensors.size(); ++i) {
      PlanTensor(shard.first_tensor + i, data_offset + shard.header.tensors[i].offset, file);
    }
    disk_bytes_ += file.bytes;
    plan_.files.push_back(std::move(file));
  }
  return absl::OkStatus();
}

void QuantizedOutput::PlanTensor(size_t index, uint64_t offset, OutputFile& file) {
  const GgufTensor& tensor = header_.tensors[index];
  const int64_t columns = tensor.columns();
  const int64_t rows = std::max<int64_t>(1, kItemElements / columns);
  const uint64_t row_bytes = tensor.bytes / static_cast<uint64_t>(tensor.rows());
  for (int64_t row = 0; row < tensor.rows(); row += rows) {
    const int64_t count = std::min(rows, tensor.rows() - row);
    const uint64_t bytes = row_bytes * static_cast<uint64_t>(count);
    file.items.push_back({.name = tensor.name, .offset = offset, .parts = {{.bytes = bytes}}});
    pieces_.push_back({{{sources_[index], row * columns, count * columns}, tensor.dtype}});
    offset += bytes;
  }
}

absl::Status QuantizedOutput::PlanDirectory() {
  const std::vector<size_t> counts = {header_.tensors.size()};
  ODMOE_ASSIGN_OR_RETURN(const std::vector<GgufShard> whole,
                         CutIntoShards(header_, counts, options_.path));
  ODMOE_ASSIGN_OR_RETURN(const OutputFile file, PlanGgufFile(whole[0]));
  ODMOE_ASSIGN_OR_RETURN(
      unwritten_, GgufModel::Open(PosixFileSystem(), std::make_unique<UnwrittenGguf>(
                                                         options_.path, *file.header, file.bytes)));
  ODMOE_ASSIGN_OR_RETURN(split_, PlanSplit(*unwritten_));
  ODMOE_ASSIGN_OR_RETURN(plan_, PlanModelDirectory(*unwritten_, *split_, options_.path));
  disk_bytes_ = split_->disk_bytes;
  for (OutputFile& planned : plan_.files) {
    for (OutputItem& item : planned.items) {
      std::vector<Piece>& pieces = pieces_.emplace_back();
      for (OutputPart& part : item.parts) {
        ODMOE_ASSIGN_OR_RETURN(pieces.emplace_back(),
                               PieceAt(part.offset - file.header->size(), part.bytes));
        part = {.bytes = part.bytes};
      }
    }
  }
  return absl::OkStatus();
}

// What lies at an offset of the tensor data of the file in one.
absl::StatusOr<QuantizedOutput::Piece> QuantizedOutput::PieceAt(uint64_t offset,
                                                                uint64_t bytes) const {
  const auto after =
      std::upper_bound(header_.tensors.begin(), header_.tensors.end(), offset,
                       [](uint64_t at, const GgufTensor& tensor) { return at < tensor.offset; });
  const size_t index = static_cast<size_t>(after - header_.tensors.begin()) - 1;
  const GgufTensor& tensor = header_.tensors[index];
  const DTypeInfo& info = Info(tensor.dtype);
  const uint64_t from = offset - tensor.offset;
  if (from % info.block_bytes != 0 || bytes % info.block_bytes != 0 ||
      from + bytes > tensor.bytes) {
    return absl::InternalError(absl::StrCat("'", tensor.name, "': no blocks at ", from));
  }
  return Piece{
      .range = {.tensor = sources_[index],
                .first = static_cast<int64_t>(from / info.block_bytes * info.block_elements),
                .count = static_cast<int64_t>(bytes / info.block_bytes * info.block_elements)},
      .dtype = tensor.dtype};
}

namespace {

// Makes one item of every output that has a sink.
absl::Status MakeItem(const GgufModel& source, const ImportanceMatrix* importance,
                      absl::Span<const QuantizedOutput* const> outputs, size_t item,
                      absl::Span<const ByteSink> sinks) {
  const size_t count = outputs[0]->pieces(item).size();
  for (size_t piece = 0; piece < count; ++piece) {
    std::vector<EncodeTarget> targets;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (sinks[i]) targets.push_back({outputs[i]->pieces(item)[piece].dtype, &sinks[i]});
    }
    ODMOE_RETURN_IF_ERROR(
        EncodeTensorRange(source, outputs[0]->pieces(item)[piece].range, importance, targets));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OutputPlan> JoinOutputs(const GgufModel& source, const ImportanceMatrix* importance,
                                       absl::Span<const std::unique_ptr<QuantizedOutput>> outputs) {
  OutputPlan joined;
  std::vector<const QuantizedOutput*> all;
  std::vector<size_t> first_items;
  std::vector<std::function<absl::StatusOr<std::vector<OutputText>>(absl::Span<const uint64_t>)>>
      texts;
  const size_t items = outputs[0]->plan().item_count();
  for (const auto& output : outputs) {
    const OutputPlan& plan = output->plan();
    if (plan.item_count() != items) return absl::InternalError("outputs of different items");
    joined.folders.insert(joined.folders.end(), plan.folders.begin(), plan.folders.end());
    joined.files.insert(joined.files.end(), plan.files.begin(), plan.files.end());
    if (plan.texts) texts.push_back(plan.texts);
    all.push_back(output.get());
  }
  for (size_t item = 0; item < items; ++item) {
    OutputGroup& group = joined.groups.emplace_back();
    for (size_t i = 0; i < all.size(); ++i)
      group.items.push_back(static_cast<uint32_t>(i * items + item));
    group.make = [&source, importance, all, item](absl::Span<const ByteSink> sinks) {
      return MakeItem(source, importance, all, item, sinks);
    };
  }
  if (texts.empty()) return joined;
  joined.texts =
      [texts, items](absl::Span<const uint64_t> hashes) -> absl::StatusOr<std::vector<OutputText>> {
    std::vector<OutputText> result;
    for (size_t i = 0; i < texts.size(); ++i) {
      ODMOE_ASSIGN_OR_RETURN(std::vector<OutputText> some,
                             texts[i](hashes.subspan(i * items, items)));
      std::move(some.begin(), some.end(), std::back_inserter(result));
    }
    return result;
  };
  return joined;
}

}  // namespace odmoe
