// One ReadExpert call, read as the transport's own slices: an expert's bytes are copied once, from
// what the socket was read into to where they shall lie.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "odmoe/expert_storage/v1/expert_storage_service.pb.h"

namespace odmoe {

// What one message of the stream holds.
struct ExpertStreamPart {
  std::optional<expert_storage::v1::ReadExpertHeader> header;
  std::vector<absl::Span<const std::byte>> chunk;  // in order; valid as long as `slices`
  uint64_t chunk_bytes = 0;
  std::vector<grpc::Slice> slices;
};

// Takes a serialized ReadExpertResponse apart without copying its chunk. INTERNAL: it is none.
absl::StatusOr<ExpertStreamPart> ParseExpertStreamPart(const grpc::ByteBuffer& message);

// Used by one thread, which does the socket's work while it waits.
class ExpertStream {
 public:
  // Starts the call. `wanted` is asked every 50 ms at least, while `this` waits; false ends it.
  ExpertStream(const std::shared_ptr<grpc::Channel>& channel,
               const expert_storage::v1::ReadExpertRequest& request, absl::Time deadline,
               std::function<bool()> wanted);
  // Ends the call, if it has not ended.
  ~ExpertStream();
  ExpertStream(const ExpertStream&) = delete;
  ExpertStream& operator=(const ExpertStream&) = delete;

  // The next message. False: there is none, Finish says why.
  bool Read(grpc::ByteBuffer& message);
  // How the call ended. CANCELLED: nobody wanted it any more.
  absl::Status Finish();
  // Nothing more is read.
  void Cancel() { context_.TryCancel(); }

 private:
  // Waits for the operation under way; whether it succeeded.
  bool Await();

  const std::function<bool()> wanted_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool finished_ = false;
};

}  // namespace odmoe
