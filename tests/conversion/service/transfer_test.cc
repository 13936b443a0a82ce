// Files over a real connection: sent, fetched, cut off, taken up again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "clients/cpp/remote_files.h"
#include "grpcpp/impl/service_type.h"
#include "odmoe/conversion/v1/conversion_service.grpc.pb.h"
#include "services/conversion/jobs/local_job_queue.h"
#include "services/conversion/service/conversion_service.h"
#include "services/core/io/file_hash.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/server.h"
#include "tests/conversion/fake_conversion.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

namespace fs = std::filesystem;
namespace v1 = ::odmoe::conversion::v1;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr char kId[] = "upload-1";

std::string SomeBytes(size_t count) {
  std::string bytes(count, '\0');
  for (size_t i = 0; i < count; ++i) bytes[i] = char(i * 2654435761u >> 13);
  return bytes;
}

class TransferTest : public ::testing::Test {
 protected:
  TransferTest() : endpoint_("unix:" + folder_ / "service.sock") {
    fs::create_directory(folder_ / "root");
    Start();
    files_ = *ConnectRemoteFiles(endpoint_);
  }
  ~TransferTest() override { Stop(); }

  void Start(bool with_spool = true) {
    LocalJobQueueOptions options;
    options.database_path = folder_ / "jobs.sqlite";
    options.roots = {folder_ / "root"};
    if (with_spool) {
      SpoolOptions spool;
      spool.directory = folder_ / "spool";
      spool.quota_bytes = 64 << 20;
      spool.in_use = [this](const std::string& path) { return queue_->UsesBelow(path); };
      spool_ = *Spool::Open(std::move(spool));
      options.roots.push_back(folder_ / "spool");
    }
    queue_ = *OpenLocalJobQueue(options, conversion_.functions());
    service_ = MakeConversionService(*queue_, {*PathRoots::Create(options.roots), spool_.get()});
    RpcServerOptions server;
    server.listen = endpoint_;
    server.services = {service_.get()};
    server.service_names = {ConversionServiceName()};
    server_ = *RpcServer::Start(server);
  }
  void Stop() {
    server_ = nullptr;
    service_ = nullptr;
    queue_ = nullptr;
    spool_ = nullptr;
  }

  TemporaryDirectory folder_;
  const std::string endpoint_;
  FakeConversion conversion_;
  std::unique_ptr<Spool> spool_;
  std::unique_ptr<HostedJobQueue> queue_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<RemoteFiles> files_;
};

TEST_F(TransferTest, AFileGoesThereAndBack) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{5'000'000}}) {
    const std::string bytes = SomeBytes(size), name = absl::StrCat("dir/file", size);
    WriteFileOrDie(folder_ / "local", bytes);
    uint64_t last = 0;
    ASSERT_TRUE(files_->UploadFile(kId, name, folder_ / "local",
                                   {.on_progress = [&](uint64_t done) { last = done; }})
                    .ok());
    EXPECT_EQ(last, size);
    const std::string path = absl::StrCat(files_->GetUpload(kId)->directory, "/", name);
    EXPECT_EQ(ReadFileOrDie(path), bytes);
    const absl::Status fetched = files_->DownloadFile(path, folder_ / "back", {});
    ASSERT_TRUE(fetched.ok()) << fetched;
    EXPECT_EQ(ReadFileOrDie(folder_ / "back"), bytes);
    EXPECT_FALSE(fs::exists(folder_ / "back.partial"));
  }
  const auto listed = *files_->ListFiles(files_->GetUpload(kId)->directory);
  ASSERT_THAT(listed, SizeIs(3));
  EXPECT_EQ(listed[0].name, "dir/file0");
  EXPECT_EQ(listed[2].size_bytes, 5'000'000u);
  EXPECT_TRUE(files_->DeleteUpload(kId).ok());
  EXPECT_EQ(files_->GetUpload(kId).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(TransferTest, AnUploadGoesOnAfterTheServicesRestart) {
  const std::string bytes = SomeBytes(8'000'000);
  WriteFileOrDie(folder_ / "local", bytes);
  std::thread restart;
  int interruptions = 0;
  uint64_t resumed_at = 0;
  TransferOptions options;
  options.on_interrupted = [&](const absl::Status&) { ++interruptions; };
  options.on_progress = [&](uint64_t done) {
    if (interruptions > 0 && resumed_at == 0) resumed_at = done;
    // Some bytes have been kept by now, and the sender waits for the restart.
    if (restart.joinable() || done < 3'000'000) return;
    while (files_->GetUpload(kId)->files[0].kept_bytes == 0) std::this_thread::yield();
    restart = std::thread([&] {
      Stop();
      Start();
    });
    restart.join();
    restart = std::thread([] {});
  };
  const absl::Status sent = files_->UploadFile(kId, "file", folder_ / "local", options);
  if (restart.joinable()) restart.join();
  ASSERT_TRUE(sent.ok()) << sent;
  EXPECT_GE(interruptions, 1);
  EXPECT_GT(resumed_at, 0u);
  EXPECT_EQ(ReadFileOrDie(files_->GetUpload(kId)->directory + "/file"), bytes);
}

TEST_F(TransferTest, AnInterruptedUploadGoesOnWithTheNextCall) {
  const std::string bytes = SomeBytes(8'000'000);
  WriteFileOrDie(folder_ / "local", bytes);
  Cancellation cancellation;
  TransferOptions options;
  options.cancellation = &cancellation;
  options.on_progress = [&](uint64_t done) {
    if (done < 3'000'000) return;
    while (files_->GetUpload(kId)->files[0].kept_bytes == 0) std::this_thread::yield();
    cancellation.Cancel();
  };
  const absl::Status interrupted = files_->UploadFile(kId, "file", folder_ / "local", options);
  if (!interrupted.ok()) {  // else it was faster
    EXPECT_EQ(interrupted.code(), absl::StatusCode::kCancelled);
    EXPECT_GT(files_->GetUpload(kId)->files[0].kept_bytes, 0u);
    uint64_t first = 0;
    const absl::Status sent =
        files_->UploadFile(kId, "file", folder_ / "local", {.on_progress = [&](uint64_t done) {
                             if (first == 0) first = done;
                           }});
    ASSERT_TRUE(sent.ok()) << sent;
    EXPECT_GT(first, 0u);
  }
  EXPECT_EQ(ReadFileOrDie(files_->GetUpload(kId)->directory + "/file"), bytes);
}

TEST_F(TransferTest, ADownloadGoesOnWhereItWas) {
  const std::string bytes = SomeBytes(5'000'000);
  WriteFileOrDie(folder_ / "root/file", bytes);
  WriteFileOrDie(folder_ / "local.partial", bytes.substr(0, 2'000'000));
  uint64_t first = 0;
  const TransferOptions options{.on_progress = [&](uint64_t done) {
    if (first == 0) first = done;
  }};
  ASSERT_TRUE(files_->DownloadFile(folder_ / "root/file", folder_ / "local", options).ok());
  EXPECT_EQ(first, 2'000'000u);
  EXPECT_EQ(ReadFileOrDie(folder_ / "local"), bytes);
  // What is here of another file is not gone on with, nor what is too long.
  for (const std::string& other : {std::string(100, 'x'), SomeBytes(5'000'001)}) {
    WriteFileOrDie(folder_ / "local.partial", other);
    const absl::Status status =
        files_->DownloadFile(folder_ / "root/file", folder_ / "local", {});
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(ReadFileOrDie(folder_ / "local"), bytes);
  }
}

TEST_F(TransferTest, OnlyWhatIsBelowTheRootsIsServed) {
  TemporaryDirectory elsewhere;
  WriteFileOrDie(elsewhere / "secret", "secret");
  fs::create_symlink(elsewhere / "secret", folder_ / "root/link");
  fs::create_directory(folder_ / "root/sub");
  const auto code = [&](const std::string& path) {
    EXPECT_EQ(files_->ListFiles(path).ok(), files_->DownloadFile(path, folder_ / "x", {}).ok() ||
                                                fs::is_directory(path));
    const absl::Status status = files_->DownloadFile(path, folder_ / "x", {});
    EXPECT_FALSE(fs::exists(folder_ / "x"));
    EXPECT_FALSE(fs::exists(folder_ / "x.partial"));
    return status.code();
  };
  EXPECT_EQ(code(elsewhere / "secret"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code(folder_ / "root/link"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code(folder_ / "root/../jobs.sqlite"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code("/etc/passwd"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code(folder_ / "root/absent"), absl::StatusCode::kNotFound);
  EXPECT_EQ(code("relative"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(""), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(folder_ / "root/sub"), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(*files_->ListFiles(folder_ / "root"), SizeIs(0));
}

TEST_F(TransferTest, AnUploadInUseStays) {
  WriteFileOrDie(folder_ / "local", "MODEL a");
  ASSERT_TRUE(files_->UploadFile(kId, "a.model", folder_ / "local", {}).ok());
  const std::string directory = files_->GetUpload(kId)->directory;
  conversion_.Hold();
  const auto job = queue_->Submit(OneStep(directory + "/a.model", directory + "/a.gguf"), "");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(files_->DeleteUpload(kId).code(), absl::StatusCode::kFailedPrecondition);
  conversion_.Release();
  ASSERT_TRUE(queue_->Watch(job->id, {}, [](const Job&) { return true; }).ok());
  EXPECT_TRUE(files_->DeleteUpload(kId).ok());
}

TEST_F(TransferTest, WithoutASpoolNothingIsTaken) {
  Stop();
  Start(/*with_spool=*/false);
  WriteFileOrDie(folder_ / "local", "bytes");
  EXPECT_EQ(files_->UploadFile(kId, "x", folder_ / "local", {}).code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(files_->GetUpload(kId).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(files_->DeleteUpload(kId).code(), absl::StatusCode::kUnimplemented);
  WriteFileOrDie(folder_ / "root/file", "bytes");
  EXPECT_TRUE(files_->DownloadFile(folder_ / "root/file", folder_ / "x", {}).ok());
}

// What a client of another making might send.
TEST_F(TransferTest, BadInputIsRefused) {
  const auto stub = v1::ConversionService::NewStub(*MakeChannel(endpoint_));
  using Requests = std::vector<v1::UploadFileRequest>;
  const auto upload = [&](const Requests& requests) {
    grpc::ClientContext context;
    v1::UploadFileResponse response;
    const auto writer = stub->UploadFile(&context, &response);
    for (const v1::UploadFileRequest& request : requests) {
      if (!writer->Write(request)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  };
  const auto header = [](const std::string& id, const std::string& name, int64_t size,
                         int64_t offset) {
    v1::UploadFileRequest request;
    request.mutable_header()->set_upload_id(id);
    request.mutable_header()->set_name(name);
    request.mutable_header()->set_size_bytes(size);
    request.mutable_header()->set_offset(offset);
    return request;
  };
  const auto chunk = [](const std::string& data, uint64_t hash) {
    v1::UploadFileRequest request;
    request.mutable_chunk()->set_data(data);
    request.mutable_chunk()->set_hash(hash);
    return request;
  };
  v1::UploadFileRequest trailer;
  trailer.mutable_trailer()->set_hash(FileHash::Of("ab"));
  const uint64_t hash = FileHash::Of("ab");
  const struct {
    Requests requests;
    grpc::StatusCode code;
    std::string text;
  } cases[] = {
      {{}, grpc::INVALID_ARGUMENT, "part"},
      {{v1::UploadFileRequest()}, grpc::INVALID_ARGUMENT, "header"},
      {{trailer}, grpc::INVALID_ARGUMENT, "header"},
      {{header("", "a", 2, 0)}, grpc::INVALID_ARGUMENT, "upload_id"},
      {{header("../../..", "a", 2, 0)}, grpc::INVALID_ARGUMENT, "upload_id"},
      {{header(kId, "", 2, 0)}, grpc::INVALID_ARGUMENT, "name"},
      {{header(kId, "../a", 2, 0)}, grpc::INVALID_ARGUMENT, "name"},
      {{header(kId, "a", -1, 0)}, grpc::INVALID_ARGUMENT, "size_bytes"},
      {{header(kId, "a", 2, -1)}, grpc::INVALID_ARGUMENT, "offset"},
      {{header(kId, "a", 2, 3)}, grpc::OUT_OF_RANGE, "offset"},
      {{header(kId, "a", 2, 1)}, grpc::OUT_OF_RANGE, "offset"},
      {{header(kId, "a", int64_t{1} << 60, 0)}, grpc::RESOURCE_EXHAUSTED, "do not fit"},
      {{header(kId, "a", 2, 0), header(kId, "a", 2, 0)}, grpc::INVALID_ARGUMENT, "chunk"},
      {{header(kId, "a", 2, 0), chunk("", 0)}, grpc::INVALID_ARGUMENT, "chunk.data"},
      {{header(kId, "a", 9'000'000, 0), chunk(std::string(5'000'000, 'x'), 0)},
       grpc::INVALID_ARGUMENT,
       "chunk.data"},
      {{header(kId, "a", 2, 0), chunk("ab", hash + 1)}, grpc::DATA_LOSS, "hash"},
      {{header(kId, "a", 1, 0), chunk("ab", hash)}, grpc::OUT_OF_RANGE, "size"},
      {{header(kId, "a", 3, 0), chunk("ab", hash), trailer}, grpc::FAILED_PRECONDITION, "trailer"},
      {{header(kId, "a", 2, 0), chunk("ab", hash)}, grpc::CANCELLED, "trailer"},
  };
  for (const auto& test : cases) {
    const grpc::Status status = upload(test.requests);
    EXPECT_EQ(status.error_code(), test.code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(test.text));
  }
  EXPECT_TRUE(upload({header(kId, "a", 2, 0), chunk("ab", hash), trailer}).ok());
  for (const std::string& id : {std::string(), std::string("a/b/c/d/e/f"), std::string(65, 'i')}) {
    EXPECT_EQ(files_->GetUpload(id).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(files_->DeleteUpload(id).code(), absl::StatusCode::kInvalidArgument);
  }
  const auto download = [&](const std::string& path, int64_t offset) {
    grpc::ClientContext context;
    v1::DownloadFileRequest request;
    request.set_path(path);
    request.set_offset(offset);
    const auto reader = stub->DownloadFile(&context, request);
    v1::DownloadFileResponse response;
    while (reader->Read(&response)) {
    }
    return reader->Finish().error_code();
  };
  const std::string path = files_->GetUpload(kId)->directory + "/a";
  EXPECT_EQ(download(path, 0), grpc::OK);
  EXPECT_EQ(download(path, -1), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(download(path, 3), grpc::OUT_OF_RANGE);
  EXPECT_EQ(download(path, 1), grpc::FAILED_PRECONDITION);  // the prefix's hash is missing
  EXPECT_EQ(download(std::string(5000, '/'), 0), grpc::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace odmoe
