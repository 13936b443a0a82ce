#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "converter/merge/merge.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/formats/model_index.h"

namespace odmoe {
namespace {

// As a split carries along at most.
constexpr uint64_t kMaxTrailingBytes = 16 * kMiB;

bool IsBias(ExpertPart part) {
  return part == ExpertPart::kW1Bias || part == ExpertPart::kW2Bias || part == ExpertPart::kW3Bias;
}

// An expert's file, opened for each read: a model has more of them than a process may have
// descriptors.
class ExpertFileOnDemand : public RandomAccessFile {
 public:
  ExpertFileOnDemand(FileSystem& fs, const ExpertFile& file) : fs_(fs), file_(file) {}

  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const override {
    ODMOE_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file,
                           fs_.OpenForRead(file_.path));
    if (file->size() != file_.file_bytes) {
      return absl::DataLossError(absl::StrCat(file_.path, ": has ", file->size(), " bytes, ",
                                              kRegistryFile, " says ", file_.file_bytes));
    }
    return file->ReadAt(offset, out);
  }
  uint64_t size() const override { return file_.file_bytes; }
  const std::string& path() const override { return file_.path; }

 private:
  FileSystem& fs_;
  const ExpertFile file_;
};

class MergePlanner {
 public:
  MergePlanner(FileSystem& fs, const std::string& directory) : fs_(fs), directory_(directory) {}

  absl::StatusOr<MergePlan> Plan(const std::string& destination) {
    // First the registry: without it the directory is not complete.
    ODMOE_ASSIGN_OR_RETURN(registry_, ReadExpertRegistry(directory_, fs_));
    ODMOE_ASSIGN_OR_RETURN(index_, ReadModelIndex(fs_, directory_));
    if (index_.model_digest != registry_.catalog.model_digest()) {
      return Contradiction(absl::StrCat("model_digest is ", index_.model_digest, ", in ",
                                        kRegistryFile, " ", registry_.catalog.model_digest()));
    }
    ODMOE_ASSIGN_OR_RETURN(BaseFiles base, BaseFiles::Open(fs_, directory_, index_));
    plan_.base = std::make_unique<BaseFiles>(std::move(base));
    for (const ExpertFile& file : registry_.files) {
      plan_.experts.push_back(std::make_unique<ExpertFileOnDemand>(fs_, file));
    }
    ODMOE_RETURN_IF_ERROR(LayOut());
    for (size_t i = 0; i < index_.tensors.size(); ++i) {
      ODMOE_RETURN_IF_ERROR(
          AddTensor(index_.tensors[i], data_offset_ + header_.tensors[i].offset));
    }
    ODMOE_RETURN_IF_ERROR(AddPadding());
    OutputPlan& output = plan_.output;
    output.destination = destination;
    output.journal_path = JournalPath(destination, /*is_file=*/true);
    file_.path = destination;
    output.files.push_back(std::move(file_));
    ODMOE_RETURN_IF_ERROR(SetFingerprintOfInputs());
    return std::move(plan_);
  }

 private:
  absl::Status Contradiction(absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(directory_, "/", kMetadataFile, ": ", what));
  }

  // The header, and the file's size.
  absl::Status LayOut() {
    header_.metadata = index_.metadata;
    header_.version = index_.gguf_version;
    for (const IndexedTensor& tensor : index_.tensors) {
      header_.tensors.push_back({.name = tensor.name, .dtype = tensor.dtype, .ne = tensor.ne});
    }
    const absl::Status laid_out = LayOutGgufTensors(header_);
    if (!laid_out.ok()) return Contradiction(laid_out.message());
    auto text = EncodeGgufHeader(header_);
    if (!text.ok()) return Contradiction(text.status().message());
    header_bytes_ = UnpaddedGgufHeaderBytes(header_);
    data_offset_ = text->size();
    end_ = header_.tensors.empty() ? header_bytes_
                                   : data_offset_ + header_.tensors.back().offset +
                                         header_.tensors.back().bytes;
    file_.bytes = index_.gguf_bytes;
    if (file_.bytes < end_ || file_.bytes - end_ > kMaxTrailingBytes) {
      return Contradiction(absl::StrCat("the GGUF file had ", file_.bytes,
                                        " bytes, and its tensors end at ", end_));
    }
    // Only a file without tensors can end before its data would begin.
    if (text->size() > file_.bytes) text->resize(file_.bytes);
    file_.header = std::make_shared<const std::string>(*std::move(text));
    return absl::OkStatus();
  }

  absl::Status AddTensor(const IndexedTensor& tensor, uint64_t offset) {
    if (!tensor.file.empty()) {
      const RandomAccessFile& file = plan_.base->FileOf(tensor).file();
      file_.items.push_back(
          {tensor.name, offset, {{.bytes = tensor.bytes, .file = &file, .offset = tensor.offset}}});
      return absl::OkStatus();
    }
    const LayerExperts* layer = registry_.catalog.FindLayer(tensor.expert_layer);
    if (layer == nullptr) {
      return Contradiction(absl::StrCat("tensor '", tensor.name, "' holds experts of layer ",
                                        tensor.expert_layer, ", which ", kRegistryFile,
                                        " does not have"));
    }
    uint64_t share = 0;
    int64_t columns = 0;
    for (ExpertPart part : tensor.expert_parts) {
      const ExpertTensor& stored = layer->layout.part(part);
      if (stored.bytes == 0 || stored.dtype != tensor.dtype) {
        return Contradiction(absl::StrCat("tensor '", tensor.name, "' is ",
                                          Info(tensor.dtype).name, "; the experts have no such ",
                                          ExpertPartName(part)));
      }
      share += stored.bytes;
      // The biases of fused matrices are one row.
      columns = IsBias(part) ? columns + stored.columns : stored.columns;
    }
    const bool all = tensor.expert < 0;
    const int32_t first = all ? 0 : tensor.expert, end = all ? layer->expert_count : first + 1;
    if (end > layer->expert_count || tensor.ne[0] != columns ||
        tensor.bytes != share * static_cast<uint64_t>(end - first)) {
      return Contradiction(absl::StrCat("tensor '", tensor.name, "' has ", tensor.bytes,
                                        " bytes in rows of ", tensor.ne[0], ", the ",
                                        layer->expert_count, " experts of layer ", layer->layer,
                                        " have ", share, " of it each"));
    }
    for (int32_t expert = first; expert < end; ++expert, offset += share) {
      AddShare(tensor, *layer, expert, offset);
    }
    return absl::OkStatus();
  }

  void AddShare(const IndexedTensor& tensor, const LayerExperts& layer, int32_t expert,
                uint64_t offset) {
    const size_t index =
        static_cast<size_t>(registry_.catalog.IndexOf({layer.layer, expert}));
    OutputItem item{.name = tensor.name, .offset = offset};
    if (tensor.expert < 0) absl::StrAppend(&item.name, " of expert ", expert);
    for (ExpertPart part : tensor.expert_parts) {
      const ExpertTensor& stored = layer.layout.part(part);
      item.parts.push_back({.bytes = stored.bytes,
                            .file = plan_.experts[index].get(),
                            .offset = registry_.files[index].data_offset + stored.offset});
    }
    file_.items.push_back(std::move(item));
  }

  // What is not zero between the tensors; it lies over none of them, or it would change them.
  absl::Status AddPadding() {
    size_t next = 0;
    uint64_t gap_begin = header_bytes_;
    for (const GgufPadding& padding : index_.gguf_padding) {
      while (next < header_.tensors.size() &&
             padding.offset >= data_offset_ + header_.tensors[next].offset) {
        gap_begin = data_offset_ + header_.tensors[next].offset + header_.tensors[next].bytes;
        ++next;
      }
      const uint64_t gap_end = next < header_.tensors.size()
                                   ? data_offset_ + header_.tensors[next].offset
                                   : file_.bytes;
      if (padding.offset < gap_begin || padding.offset + padding.bytes.size() > gap_end) {
        return Contradiction(absl::StrCat("padding at ", padding.offset, " of ",
                                          padding.bytes.size(), " bytes lies over a tensor"));
      }
      OutputPart part{.bytes = padding.bytes.size()};
      part.make = [bytes = padding.bytes](const ByteSink& sink) {
        return sink(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()),
                                        bytes.size()));
      };
      file_.items.push_back({"padding", padding.offset, {std::move(part)}});
    }
    return absl::OkStatus();
  }

  // The two JSON files name every expert's bytes by their hash.
  absl::Status SetFingerprintOfInputs() {
    std::vector<std::unique_ptr<RandomAccessFile>> opened;
    std::vector<const RandomAccessFile*> sources;
    for (const char* inside : {kRegistryFile, kMetadataFile}) {
      ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file,
                             fs_.OpenForRead(absl::StrCat(directory_, "/", inside)));
      sources.push_back(file.get());
      opened.push_back(std::move(file));
    }
    return SetFingerprint(plan_.output, registry_.catalog.model_digest(), sources);
  }

  FileSystem& fs_;
  const std::string& directory_;
  ExpertRegistry registry_;
  ModelIndex index_;
  GgufHeader header_;
  uint64_t header_bytes_ = 0;  // without padding
  uint64_t data_offset_ = 0;
  uint64_t end_ = 0;           // of the last tensor
  OutputFile file_;
  MergePlan plan_;
};

}  // namespace

absl::StatusOr<MergePlan> PlanMerge(FileSystem& fs, const std::string& directory,
                                    const std::string& destination) {
  return MergePlanner(fs, directory).Plan(destination);
}

}  // namespace odmoe
