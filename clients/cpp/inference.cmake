odmoe_library(odmoe_client_inference
  SOURCES inference_proto.cc remote_language_model.cc
  DEPENDS odmoe_generation odmoe_rpc odmoe_proto_inference absl::strings absl::str_format
          absl::time)
