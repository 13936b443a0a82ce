#include "services/expert_storage/sources/direct_expert_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/io/aligned_buffer.h"

namespace odmoe {
namespace {

constexpr size_t kHashers = 2;
constexpr uint32_t kMostDepth = 256;
constexpr uint64_t kMostRequestBytes = 64 * kMiB;
// Below this a model is read in a moment whatever the shape, and trials would take as long.
constexpr uint64_t kWorthMeasuringBytes = 512 * kMiB;
constexpr size_t kTrialExperts = 48;
constexpr absl::Duration kFirstOpenRetry = absl::Milliseconds(1);
constexpr absl::Duration kLongestOpenRetry = absl::Milliseconds(50);

absl::Status CheckShape(const DirectExpertSource::Options& options) {
  if (options.depth && (*options.depth == 0 || *options.depth > kMostDepth)) {
    return absl::InvalidArgumentError(absl::StrCat("I/O depth of ", *options.depth,
                                                   ": expected 1 to ", kMostDepth, " requests"));
  }
  if (options.request_bytes &&
      (*options.request_bytes < kDirectIoAlignment || *options.request_bytes > kMostRequestBytes ||
       *options.request_bytes % kDirectIoAlignment != 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "I/O split of ", *options.request_bytes, " bytes: expected a multiple of ",
        kDirectIoAlignment, " of at most ", FormatBytes(kMostRequestBytes)));
  }
  if (options.directories.empty() ||
      options.directories.size() > DirectExpertSource::kMostDirectories) {
    return absl::InvalidArgumentError(absl::StrCat(options.directories.size(),
                                                   " directories of one model: expected 1 to ",
                                                   DirectExpertSource::kMostDirectories));
  }
  return absl::OkStatus();
}

// What measuring found, by device and kind of reader: a file system need not be measured for each
// model that is opened.
IoTuning MeasuredOnce(uint64_t device, bool io_uring, const std::function<IoTuning()>& measure) {
  static absl::Mutex mutex(absl::kConstInit);
  static auto& found = *new std::map<std::pair<uint64_t, bool>, IoTuning>;
  absl::MutexLock lock(&mutex);
  const auto key = std::pair(device, io_uring);
  const auto known = found.find(key);
  if (known != found.end()) return known->second;
  const IoTuning tuning = measure();
  if (tuning.bytes_per_second > 0) found[key] = tuning;
  return tuning;
}

}  // namespace

// One expert being read.
struct DirectExpertSource::Job {
  ExpertId id;
  int64_t expert = 0;
  uint64_t bytes = 0;
  absl::Span<std::byte> destination;
  std::shared_ptr<const ReadControl> control;
  Done done;
  FileExtents extents;
  uint32_t tried = 0;    // directories, a bit each
  absl::Status failure;  // of the first of them
  std::shared_ptr<RunningHash> hash;

  bool cancelled() const { return control && control->cancelled(); }
};

absl::StatusOr<std::unique_ptr<DirectExpertSource>> DirectExpertSource::Create(
    std::unique_ptr<ExpertPlaces> places, Options options) {
  if (places->catalog().expert_count() == 0) {
    return absl::InvalidArgumentError("a model without routed experts has nothing to read");
  }
  ODMOE_RETURN_IF_ERROR(CheckShape(options));
  const std::vector<std::string> directories = options.directories;
  auto source = absl::WrapUnique(new DirectExpertSource(std::move(places), std::move(options)));
  for (const std::string& directory : directories) {
    ODMOE_RETURN_IF_ERROR(source->AddDirectory(directory));
  }
  return source;
}

DirectExpertSource::DirectExpertSource(std::unique_ptr<ExpertPlaces> places, Options options)
    : places_(std::move(places)),
      options_(std::move(options)),
      hashes_(places_->catalog()),
      hashers_(kHashers) {}

DirectExpertSource::~DirectExpertSource() {
  stopping_ = true;
  absl::MutexLock lock(&mutex_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return jobs_ == 0; };
  mutex_.Await(absl::Condition(&idle));
}

absl::Status DirectExpertSource::AddDirectory(const std::string& directory) {
  struct stat info;
  if (stat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::NotFoundError(absl::StrCat(directory, ": no such directory to read experts from"));
  }
  ODMOE_ASSIGN_OR_RETURN(const bool direct, ExpertDisk::ReadsDirectly(*places_, directory));
  if (!direct && !options_.fall_back_to_page_cache) {
    return absl::UnimplementedError(
        absl::StrCat("the file system of ", directory, " has no O_DIRECT"));
  }
  const size_t open_files =
      options_.open_files > 0
          ? options_.open_files
          : std::max<size_t>(4, FileCache::DefaultCapacity() / options_.directories.size());
  auto disk = std::make_unique<ExpertDisk>(
      *places_, directory,
      ExpertDisk::Options{
          .direct = direct, .copies = !disks_.empty(), .open_files = open_files});
  Device* device = DeviceOf(*disk);
  disks_.push_back({std::move(disk), device});
  return absl::OkStatus();
}

DirectExpertSource::Device* DirectExpertSource::DeviceOf(ExpertDisk& disk) {
  struct stat info = {};
  stat(disk.directory().c_str(), &info);
  for (const auto& device : devices_) {
    if (device->number == info.st_dev) return device.get();
  }
  auto device = std::make_unique<Device>();
  device->first = &disk;
  device->number = info.st_dev;
  // Buffered reads by io_uring run on kernel threads anyhow; ours do as well.
  device->io_uring = disk.direct() && options_.io_uring && MakeUringReader(IoShape()).ok();
  const bool all_given = options_.depth && options_.request_bytes;
  if (!all_given && disk.direct() && options_.measure > absl::ZeroDuration() &&
      catalog().total_bytes() >= kWorthMeasuringBytes) {
    device->measured = true;
    device->tuning = MeasuredOnce(info.st_dev, device->io_uring, [&] {
      return MeasureIo(
          TrialExtents(disk), [&](IoShape shape) { return MakeReader(*device, shape); },
          options_.measure);
    });
  }
  device->tuning.shape.depth = options_.depth.value_or(device->tuning.shape.depth);
  device->tuning.shape.request_bytes =
      options_.request_bytes.value_or(device->tuning.shape.request_bytes);
  device->reader = MakeReader(*device, device->tuning.shape);
  devices_.push_back(std::move(device));
  return devices_.back().get();
}

std::unique_ptr<BlockReader> DirectExpertSource::MakeReader(const Device& device,
                                                            IoShape shape) const {
  if (options_.make_reader) return options_.make_reader(shape);
  if (device.io_uring) {
    if (auto uring = MakeUringReader(shape); uring.ok()) return *std::move(uring);
  }
  return MakePreadReader(shape);
}

// Whether reads go straight into the memory there is, or through buffers in huge pages. It is the
// memory that decides it: shared memory seldom has huge pages, and some disks, virtual ones above
// all, are far slower where a request is made of many small pieces of it.
void DirectExpertSource::ChooseWay(absl::Span<std::byte> memory) {
  // A copy takes of the processor what others may want.
  constexpr double kWorthACopy = 1.2;
  for (const auto& device : devices_) {
    if (!device->measured || !device->first->direct()) continue;
    const std::vector<TrialExtent> extents = TrialExtents(*device->first);
    IoShape shape = device->tuning.shape;
    double rate[2];
    for (const bool through : {false, true}) {
      shape.through_buffers = through;
      rate[through] = MeasureRate(extents, memory, shape, MakeReader(*device, shape),
                                  options_.measure / 6);
    }
    device->tuning.shape.through_buffers = rate[0] > 0 && rate[1] > kWorthACopy * rate[0];
    if (rate[0] > 0) device->tuning.bytes_per_second = std::max(rate[0], rate[1]);
    device->reader->SetThroughBuffers(device->tuning.shape.through_buffers);
  }
}

// Experts from all over the model, so that no cache of the device knows them.
std::vector<TrialExtent> DirectExpertSource::TrialExtents(ExpertDisk& disk) const {
  std::vector<TrialExtent> trials;
  const int64_t count = catalog().expert_count();
  const int64_t step = std::max<int64_t>(1, count / static_cast<int64_t>(kTrialExperts));
  // Odd, and not from the start: consecutive experts may lie together.
  for (int64_t i = 0; i < count && trials.size() < kTrialExperts; i += step) {
    const FileExtents extents = places_->Extents((i * 7 + count / 3) % count);
    const auto files = disk.Open(extents);
    if (!files.ok()) continue;
    const uint64_t begin = RoundUp(extents[0].file_offset, kDirectIoAlignment);
    const uint64_t end = (extents[0].file_offset + extents[0].bytes) & ~(kDirectIoAlignment - 1);
    if (begin < end) trials.push_back({(*files)[0], begin, end - begin});
  }
  return trials;
}

void DirectExpertSource::Read(ExpertId id, absl::Span<std::byte> destination,
                              std::shared_ptr<const ReadControl> control, Done done) {
  const int64_t expert = catalog().IndexOf(id);
  if (expert < 0) {
    done(absl::NotFoundError(absl::StrCat("no expert ", ExpertName(id), " in this model")));
    return;
  }
  const uint64_t bytes = catalog().FindLayer(id.layer)->layout.bytes;
  const uint64_t room = RoundUp(bytes, kDirectIoAlignment);
  if (destination.size() < room) {
    done(absl::InvalidArgumentError(absl::StrCat("room for ", destination.size(), " bytes, ",
                                                 ExpertName(id), " takes ", room)));
    return;
  }
  auto job = std::make_shared<Job>();
  job->id = id;
  job->expert = expert;
  job->bytes = bytes;
  job->destination = destination.first(room);
  job->control = std::move(control);
  job->done = std::move(done);
  job->extents = places_->Extents(expert);
  way_chosen_.store(true, std::memory_order_relaxed);
  {
    absl::MutexLock lock(&mutex_);
    ++jobs_;
  }
  Attempt(std::move(job));
}

// The directory with the least to do of those not tried yet; -1: all have been.
int DirectExpertSource::Choose(const Job& job) const {
  int best = -1;
  uint64_t least = 0;
  for (size_t i = 0; i < disks_.size(); ++i) {
    // Where all are idle, not always the first.
    const size_t disk = (i + static_cast<size_t>(job.expert)) % disks_.size();
    if ((job.tried >> disk & 1) != 0 || !disks_[disk].files->MayHave(job.expert)) continue;
    const uint64_t bytes = disks_[disk].files->bytes_under_way();
    if (best >= 0 && bytes >= least) continue;
    best = static_cast<int>(disk);
    least = bytes;
  }
  return best;
}

void DirectExpertSource::Attempt(JobPtr job) {
  const int disk = Choose(*job);
  if (disk < 0) {
    absl::Status failure = job->failure;
    if (failure.ok()) {
      failure = absl::DataLossError(absl::StrCat(ExpertName(job->id), ": in none of the model's ",
                                                 disks_.size(), " directories"));
    }
    Finish(*job, std::move(failure));
    return;
  }
  disks_[disk].files->Begin(job->bytes);
  ExpertDisk::Files files = disks_[disk].files->OpenAtOnce(job->extents);
  if (!files.empty()) {
    Start(std::move(job), disk, std::move(files));
    return;
  }
  disks_[disk].files->openers().Schedule([this, job = std::move(job), disk]() mutable {
    OpenThenStart(std::move(job), disk);
  });
}

void DirectExpertSource::OpenThenStart(JobPtr job, int disk) {
  const absl::Time give_up = absl::Now() + options_.open_patience;
  for (absl::Duration pause = kFirstOpenRetry;; pause = std::min(2 * pause, kLongestOpenRetry)) {
    if (job->cancelled()) {
      Settle(std::move(job), disk, absl::CancelledError("nobody wants it any more"));
      return;
    }
    absl::StatusOr<ExpertDisk::Files> files = disks_[disk].files->Open(job->extents);
    if (files.ok()) {
      Start(std::move(job), disk, *std::move(files));
      return;
    }
    if (!absl::IsResourceExhausted(files.status()) || absl::Now() > give_up || stopping_) {
      Settle(std::move(job), disk, files.status());
      return;
    }
    // Descriptors come back when others are done with theirs.
    open_retries_.fetch_add(1, std::memory_order_relaxed);
    absl::SleepFor(pause);
  }
}

void DirectExpertSource::Start(JobPtr job, int disk, ExpertDisk::Files files) {
  BlockRead read;
  for (size_t i = 0; i < job->extents.size(); ++i) {
    const FileExtent& extent = job->extents[i];
    // Only behind the last is there room for the rest of a page.
    const bool last = i + 1 == job->extents.size();
    read.extents.push_back(
        {std::move(files[i]), extent.file_offset,
         job->destination.subspan(extent.expert_offset, extent.bytes),
         last ? job->destination.size() - extent.expert_offset : extent.bytes});
  }
  read.control = job->control;
  job->hash = RunningHash::Create(job->destination.first(job->bytes), hashers_);
  read.landed = [raw = job.get()](size_t extent, uint64_t begin, uint64_t end) {
    const uint64_t offset = raw->extents[extent].expert_offset;
    raw->hash->Landed(offset + begin, offset + end);
  };
  BlockReader& reader = *disks_[disk].device->reader;
  read.done = [this, job = std::move(job), disk](absl::Status status) mutable {
    OnRead(std::move(job), disk, std::move(status));
  };
  reader.Read(std::move(read));
}

void DirectExpertSource::OnRead(JobPtr job, int disk, absl::Status status) {
  const std::shared_ptr<RunningHash> hash = job->hash;
  if (!status.ok()) {
    hash->Abandon([this, job = std::move(job), disk, status = std::move(status)]() mutable {
      Settle(std::move(job), disk, std::move(status));
    });
    return;
  }
  hash->Finish([this, job = std::move(job), disk](uint64_t got) mutable {
    absl::Status checked = hashes_.Check(job->expert, got);
    Settle(std::move(job), disk, std::move(checked));
  });
}

void DirectExpertSource::Settle(JobPtr job, int disk, absl::Status status) {
  const bool given_up = absl::IsCancelled(status);
  disks_[disk].files->End(job->bytes, !status.ok() && !given_up);
  if (status.ok() && job->tried != 0) answered_by_another_.fetch_add(1, std::memory_order_relaxed);
  if (status.ok() || given_up) {
    Finish(*job, std::move(status));
    return;
  }
  TryNext(std::move(job), disk, std::move(status));
}

void DirectExpertSource::TryNext(JobPtr job, int disk, absl::Status status) {
  ExpertDisk& failed = *disks_[disk].files;
  // The next read sees what is there now, a repaired file say.
  failed.Forget(job->extents);
  const bool absent = absl::IsNotFound(status);
  if (absent || absl::IsUnimplemented(status)) {
    // The registry promises the file.
    status = absl::DataLossError(status.message());
  }
  if (disks_.size() == 1) {
    Finish(*job, std::move(status));
    return;
  }
  if (absent) {
    failed.NoteAbsent(job->expert);
  } else {
    job->tried |= 1u << disk;
    job->failure.Update(status);
  }
  const int next = Choose(*job);
  if (next < 0) {
    Attempt(std::move(job));
    return;
  }
  // Not from here: this may be the thread that reads for everybody.
  disks_[next].files->openers().Schedule([this, job = std::move(job)]() mutable {
    Attempt(std::move(job));
  });
}

void DirectExpertSource::Finish(Job& job, absl::Status status) {
  const Done done = std::move(job.done);
  done(std::move(status));
  absl::MutexLock lock(&mutex_);
  --jobs_;
}

uint64_t DirectExpertSource::desired_bytes_under_way() const {
  // What the devices ask for, and two experts each that are nearly read: of one the last part is on
  // its way, of the other the hash is not known yet.
  uint64_t bytes = 0;
  for (const auto& device : devices_) {
    bytes += device->tuning.shape.bytes() + 2 * catalog().max_expert_bytes();
  }
  return bytes;
}

void DirectExpertSource::OfferMemory(absl::Span<std::byte> memory) {
  // Once, and before there are reads that it would disturb.
  if (!way_chosen_.exchange(true)) ChooseWay(memory);
  for (const auto& device : devices_) device->reader->OfferMemory(memory);
}

void DirectExpertSource::TakeBackMemory(absl::Span<std::byte> memory) {
  for (const auto& device : devices_) device->reader->TakeBackMemory(memory);
}

SourceStats DirectExpertSource::Stats() const {
  SourceStats stats;
  stats.past_page_cache = true;
  for (const auto& device : devices_) {
    const BlockReader::Gauges gauges = device->reader->gauges();
    stats.reader = device->io_uring ? "io_uring" : "pread";
    if (device->tuning.shape.through_buffers) stats.reader += ", through buffers";
    stats.queue_depth += device->tuning.shape.depth;
    stats.request_bytes = std::max(stats.request_bytes, device->tuning.shape.request_bytes);
    stats.measured_bytes_per_second += device->tuning.bytes_per_second;
    stats.requests += gauges.requests;
    stats.requests_under_way += gauges.requests_under_way;
    stats.requests_stuck += gauges.requests_stuck;
    stats.reads_waiting += gauges.reads_waiting;
    stats.registered_bytes = std::max(stats.registered_bytes, gauges.registered_bytes);
  }
  for (const Disk& disk : disks_) {
    stats.past_page_cache = stats.past_page_cache && disk.files->direct();
    stats.open_files += disk.files->open_files();
    stats.disks.push_back(disk.files->Stats());
  }
  stats.checksum_failures = hashes_.failures();
  stats.answered_by_another_disk = answered_by_another_.load(std::memory_order_relaxed);
  stats.open_retries = open_retries_.load(std::memory_order_relaxed);
  return stats;
}

}  // namespace odmoe
