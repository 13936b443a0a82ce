#include "services/expert_storage/sources/direct_expert_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/io/aligned_buffer.h"
#include "services/expert_storage/sources/expert_files.h"

namespace odmoe {
namespace {

constexpr size_t kPreadThreads = 8;

// Some file systems accept the flag and refuse the read; so one read is tried.
absl::StatusOr<bool> DirectReadsWork(const ExpertRegistry& registry) {
  const auto extent = OpenExpert(registry, registry.catalog.IdOf(0), O_DIRECT);
  if (absl::IsUnimplemented(extent.status())) return false;
  // A first file that is lost is that expert's affair, not the model's.
  if (absl::IsDataLoss(extent.status())) return true;
  ODMOE_RETURN_IF_ERROR(extent.status());
  ODMOE_ASSIGN_OR_RETURN(AlignedBuffer block, AlignedBuffer::Allocate(kDirectIoAlignment));
  const ssize_t n = pread(extent->file.fd(), block.data(), block.size(),
                          static_cast<off_t>(extent->offset));
  return n >= 0 || errno != EINVAL;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DirectExpertSource>> DirectExpertSource::Create(
    ExpertRegistry registry, const Options& options) {
  if (registry.catalog.expert_count() == 0) {
    return absl::InvalidArgumentError("a model without routed experts has nothing to read");
  }
  ODMOE_ASSIGN_OR_RETURN(const bool direct, DirectReadsWork(registry));
  if (!direct && !options.fall_back_to_page_cache) {
    return absl::UnimplementedError(
        absl::StrCat("the file system of ", registry.files[0].path, " has no O_DIRECT"));
  }
  std::unique_ptr<BlockReader> reader;
  // Buffered reads by io_uring run on kernel threads anyhow; ours do as well.
  if (direct && options.io_uring) {
    absl::StatusOr<std::unique_ptr<BlockReader>> uring = MakeUringReader(options.queue_depth);
    if (uring.ok()) reader = *std::move(uring);
  }
  const bool io_uring = reader != nullptr;
  if (!io_uring) reader = MakePreadReader(kPreadThreads);
  return absl::WrapUnique(new DirectExpertSource(std::move(registry), direct ? O_DIRECT : 0,
                                                 io_uring, std::move(reader)));
}

DirectExpertSource::DirectExpertSource(ExpertRegistry registry, int open_flags, bool io_uring,
                                       std::unique_ptr<BlockReader> reader)
    : registry_(std::move(registry)),
      open_flags_(open_flags),
      io_uring_(io_uring),
      reader_(std::move(reader)) {}

void DirectExpertSource::Read(ExpertId id, absl::Span<std::byte> destination,
                              std::shared_ptr<const ReadControl>, Done done) {
  absl::StatusOr<ExpertExtent> extent = OpenExpert(registry_, id, open_flags_);
  if (!extent.ok()) {
    done(extent.status());
    return;
  }
  const uint64_t size = RoundUp(extent->bytes, kDirectIoAlignment);
  if (destination.size() < size) {
    done(absl::InvalidArgumentError(absl::StrCat("room for ", destination.size(), " bytes, ",
                                                 ExpertName(id), " takes ", size)));
    return;
  }
  BlockRead read;
  read.fd = extent->file.fd();
  read.path = extent->path;
  read.offset = extent->offset;
  read.into = destination.first(size);
  read.needed = extent->bytes;
  auto file = std::make_shared<OpenFile>(std::move(extent->file));
  reader_->Read(std::move(read), [file = std::move(file), done = std::move(done)](
                                     absl::Status status) mutable {
    file.reset();
    done(std::move(status));
  });
}

}  // namespace odmoe
