odmoe_library(odmoe_client_conversion
  SOURCES remote_files.cc remote_job_queue.cc retry_patience.cc
  DEPENDS odmoe_jobs odmoe_rpc odmoe_job_codec odmoe_proto_conversion absl::synchronization)
