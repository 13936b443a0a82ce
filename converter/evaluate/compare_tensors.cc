#include "converter/evaluate/compare_tensors.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "converter/progress.h"
#include "converter/quantize/quantize_source.h"
#include "services/core/base/available_cores.h"
#include "services/core/base/status_macros.h"
#include "services/core/tensor/convert.h"

namespace odmoe {
namespace {

// Numbers a thread holds of a tensor, in each of the two files.
constexpr int64_t kHeldElements = int64_t{1} << 18;
// Numbers a thread takes on at a time: few enough to share out, and many enough that what is kept
// of each piece is nothing beside them.
constexpr int64_t kPieceElements = int64_t{1} << 24;
constexpr int kMaxThreads = 64;
// A block to be named where neither side has blocks.
constexpr int64_t kPlainBlock = 32;

bool IsNumbers(DType dtype) {
  switch (dtype) {
    case DType::kI8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
    case DType::kF64:
      return false;
    default:
      return true;
  }
}

int32_t LayerOf(absl::string_view name) {
  int32_t layer = -1;
  if (!absl::ConsumePrefix(&name, "blk.")) return -1;
  return absl::SimpleAtoi(name.substr(0, name.find('.')), &layer) && layer >= 0 ? layer : -1;
}

// What of a tensor one thread has seen; sums of squares and products.
struct Sums {
  double base = 0.0, model = 0.0, product = 0.0, error = 0.0, largest = 0.0;
  double worst = -1.0;  // mean squared error of the worst block
  int64_t worst_at = 0;
  std::vector<float> worst_base, worst_values;

  void Add(const Sums& later) {
    base += later.base;
    model += later.model;
    product += later.product;
    error += later.error;
    largest = std::max(largest, later.largest);
    if (later.worst > worst) {
      worst = later.worst;
      worst_at = later.worst_at;
      worst_base = later.worst_base;
      worst_values = later.worst_values;
    }
  }
};

// Two tensors of a name, and how they are cut into pieces of whole rows.
struct TensorPair {
  const GgufTensor* base = nullptr;
  const GgufTensor* model = nullptr;
  int64_t rows_a_piece = 1;
  int64_t block = kPlainBlock;
  std::vector<Sums> pieces;
};

absl::StatusOr<std::vector<float>> ReadRows(const GgufModel& file, const GgufTensor& tensor,
                                            int64_t first, int64_t rows) {
  const int64_t columns = tensor.columns();
  ODMOE_ASSIGN_OR_RETURN(const uint64_t row_bytes, RowBytes(tensor.dtype, columns));
  std::vector<std::byte> bytes(static_cast<uint64_t>(rows) * row_bytes);
  ODMOE_RETURN_IF_ERROR(
      file.ReadTensor(tensor, static_cast<uint64_t>(first) * row_bytes, absl::MakeSpan(bytes)));
  std::vector<float> values(rows * columns);
  if (absl::Status status = DecodeRow(tensor.dtype, bytes.data(), absl::MakeSpan(values));
      !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(file.path(), ": tensor ", tensor.name, ": ",
                                                    status.message()));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    return absl::DataLossError(absl::StrCat(file.path(), ": tensor ", tensor.name, ": weight ",
                                            first * columns + static_cast<int64_t>(i), " is ",
                                            values[i]));
  }
  return values;
}

Sums SumRows(absl::Span<const float> base, absl::Span<const float> model, int64_t block,
             int64_t first) {
  Sums sums;
  const auto size = static_cast<int64_t>(base.size());
  for (int64_t begin = 0; begin < size; begin += block) {
    const int64_t end = std::min(begin + block, size);
    double error = 0.0;
    for (int64_t i = begin; i < end; ++i) {
      const double a = base[i];
      const double b = model[i];
      const double difference = b - a;
      sums.base += a * a;
      sums.model += b * b;
      sums.product += a * b;
      error += difference * difference;
      sums.largest = std::max(sums.largest, std::abs(difference));
    }
    sums.error += error;
    const double mean = error / static_cast<double>(end - begin);
    if (mean > sums.worst) {
      sums.worst = mean;
      sums.worst_at = first + begin;
    }
  }
  const int64_t at = sums.worst_at - first;
  const int64_t length = std::min(block, size - at);
  sums.worst_base.assign(base.begin() + at, base.begin() + at + length);
  sums.worst_values.assign(model.begin() + at, model.begin() + at + length);
  return sums;
}

class Comparison {
 public:
  Comparison(const GgufModel& model, const GgufModel& base) : model_(model), base_(base) {}

  absl::Status Pair(TensorReport& report) {
    for (const GgufTensor& tensor : model_.tensors()) {
      if (!IsNumbers(tensor.dtype)) continue;
      const GgufTensor* other = base_.Find(tensor.name);
      if (other == nullptr || !IsNumbers(other->dtype)) {
        report.only_in_model.push_back(tensor.name);
        continue;
      }
      if (other->ne != tensor.ne) {
        return absl::InvalidArgumentError(absl::StrCat(
            "tensor ", tensor.name, " is [", absl::StrJoin(tensor.ne, ", "), "] in ", model_.path(),
            " and [", absl::StrJoin(other->ne, ", "), "] in ", base_.path()));
      }
      Add(*other, tensor);
    }
    for (const GgufTensor& tensor : base_.tensors()) {
      if (model_.Find(tensor.name) == nullptr) report.only_in_base.push_back(tensor.name);
    }
    if (!pairs_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(model_.path(), " and ", base_.path(), " have no tensor in common"));
  }

  uint64_t bytes() const {
    uint64_t bytes = 0;
    for (const TensorPair& pair : pairs_) bytes += pair.model->bytes;
    return bytes;
  }

  absl::Status Run(int threads, StepProgress& progress) {
    results_.assign(work_.size(), absl::OkStatus());
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back([&] { Work(progress); });
    Work(progress);
    for (std::thread& thread : others) thread.join();
    for (const absl::Status& status : results_) ODMOE_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }

  std::vector<TensorError> Errors() const {
    std::vector<TensorError> errors;
    for (const TensorPair& pair : pairs_) errors.push_back(ErrorOf(pair));
    return errors;
  }

 private:
  struct Piece {
    size_t pair = 0;
    size_t piece = 0;
  };

  void Add(const GgufTensor& base, const GgufTensor& model) {
    TensorPair pair;
    pair.base = &base;
    pair.model = &model;
    const int64_t columns = model.columns();
    const int64_t blocks[] = {Info(model.dtype).block_elements, Info(base.dtype).block_elements};
    pair.block = blocks[0] > 1 ? blocks[0] : blocks[1] > 1 ? blocks[1] : kPlainBlock;
    if (columns % pair.block != 0) pair.block = columns;
    pair.rows_a_piece = std::max<int64_t>(1, kPieceElements / columns);
    pair.pieces.resize((model.rows() + pair.rows_a_piece - 1) / pair.rows_a_piece);
    for (size_t i = 0; i < pair.pieces.size(); ++i) work_.push_back({pairs_.size(), i});
    pairs_.push_back(std::move(pair));
  }

  void Work(StepProgress& progress) {
    while (!failed_.load()) {
      const size_t next = next_.fetch_add(1);
      if (next >= work_.size()) return;
      results_[next] = Measure(work_[next], progress);
      if (!results_[next].ok()) failed_.store(true);
    }
  }

  absl::Status Measure(const Piece& piece, StepProgress& progress) {
    TensorPair& pair = pairs_[piece.pair];
    const int64_t columns = pair.model->columns();
    const int64_t first = static_cast<int64_t>(piece.piece) * pair.rows_a_piece;
    const int64_t end = std::min(first + pair.rows_a_piece, pair.model->rows());
    const int64_t step = std::max<int64_t>(1, kHeldElements / columns);
    for (int64_t row = first; row < end; row += step) {
      const int64_t rows = std::min(step, end - row);
      ODMOE_ASSIGN_OR_RETURN(const std::vector<float> base,
                             ReadRows(base_, *pair.base, row, rows));
      ODMOE_ASSIGN_OR_RETURN(const std::vector<float> model,
                             ReadRows(model_, *pair.model, row, rows));
      pair.pieces[piece.piece].Add(SumRows(base, model, pair.block, row * columns));
      const uint64_t row_bytes = pair.model->bytes / static_cast<uint64_t>(pair.model->rows());
      ODMOE_RETURN_IF_ERROR(
          progress.Advance(pair.model->name, row_bytes * static_cast<uint64_t>(rows)));
    }
    return absl::OkStatus();
  }

  static TensorError ErrorOf(const TensorPair& pair) {
    Sums sums;
    for (const Sums& piece : pair.pieces) sums.Add(piece);
    TensorError error;
    error.name = pair.model->name;
    error.layer = LayerOf(error.name);
    error.base_dtype = pair.base->dtype;
    error.dtype = pair.model->dtype;
    error.elements = pair.model->rows() * pair.model->columns();
    error.base_square = sums.base;
    error.error_square = sums.error;
    error.rmse = std::sqrt(sums.error / static_cast<double>(error.elements));
    error.max_error = sums.largest;
    if (sums.base > 0.0) {
      error.relative = std::sqrt(sums.error / sums.base);
    } else if (sums.error > 0.0) {
      error.relative = std::numeric_limits<double>::infinity();
    }
    const double norms = std::sqrt(sums.base) * std::sqrt(sums.model);
    if (norms > 0.0) {
      error.cosine = std::min(1.0, sums.product / norms);
    } else if (sums.error > 0.0) {
      error.cosine = 0.0;
    }
    const int64_t columns = pair.model->columns();
    const int64_t rows = pair.model->ne.size() > 1 ? pair.model->ne[1] : 1;
    const int64_t row = sums.worst_at / columns;
    error.worst = {row / rows, row % rows, sums.worst_at % columns, std::sqrt(sums.worst),
                   sums.worst_base, sums.worst_values};
    return error;
  }

  const GgufModel& model_;
  const GgufModel& base_;
  std::vector<TensorPair> pairs_;
  std::vector<Piece> work_;
  std::vector<absl::Status> results_;  // each written by the thread that has the piece
  std::atomic<size_t> next_{0};
  std::atomic<bool> failed_{false};
};

std::vector<LayerError> LayersOf(const std::vector<TensorError>& tensors) {
  struct LayerSums {
    int64_t elements = 0;
    double base = 0.0, error = 0.0;
    const TensorError* worst = nullptr;
  };
  std::map<int32_t, LayerSums> sums;
  for (const TensorError& tensor : tensors) {
    LayerSums& layer = sums[tensor.layer];
    layer.elements += tensor.elements;
    layer.base += tensor.base_square;
    layer.error += tensor.error_square;
    if (layer.worst == nullptr || tensor.relative > layer.worst->relative) layer.worst = &tensor;
  }
  std::vector<LayerError> layers;
  for (const auto& [number, layer] : sums) {
    layers.push_back({number, layer.elements,
                      std::sqrt(layer.error / static_cast<double>(layer.elements)),
                      layer.base > 0.0 ? std::sqrt(layer.error / layer.base) : 0.0,
                      layer.worst->name});
  }
  std::stable_sort(layers.begin(), layers.end(), [](const LayerError& a, const LayerError& b) {
    return a.relative > b.relative;
  });
  return layers;
}

}  // namespace

absl::StatusOr<TensorReport> CompareTensors(
    const CompareTensorsOptions& options, const Cancellation* cancellation,
    const std::function<void(const ConvertProgress&)>& on_progress) {
  FileSystem& fs = options.file_system != nullptr ? *options.file_system : PosixFileSystem();
  ODMOE_ASSIGN_OR_RETURN(const auto model, QuantizeSource::Open(fs, options.model));
  ODMOE_ASSIGN_OR_RETURN(const auto base, QuantizeSource::Open(fs, options.base));
  TensorReport report;
  Comparison comparison(model->model(), base->model());
  ODMOE_RETURN_IF_ERROR(comparison.Pair(report));
  StepProgress progress({.step = "compare",
                         .step_number = 1,
                         .step_count = 1,
                         .total_bytes = comparison.bytes()},
                        cancellation, &on_progress);
  const int cores = AvailableCores();
  const int threads = std::clamp(options.concurrency > 0 ? options.concurrency : cores, 1,
                                 kMaxThreads);
  ODMOE_RETURN_IF_ERROR(comparison.Run(threads, progress));
  report.tensors = comparison.Errors();
  report.layers = LayersOf(report.tensors);
  return report;
}

}  // namespace odmoe
