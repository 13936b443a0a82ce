// How GGUF files hold the routed experts of a layer, whatever form they have:
//   blk.N.ffn_{gate,up,down}_exps.weight   all experts in one tensor each
//   blk.N.ffn_gate_up_exps.weight          gate and up of an expert behind one another
//   blk.N.ffn_{gate,up,down}.E.weight      a tensor an expert, as before 2024
// and the same with .bias.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/formats/gguf_model.h"

namespace odmoe {

// One contiguous piece of a tensor.
struct GgufExtent {
  const GgufTensor* tensor = nullptr;
  uint64_t offset = 0;  // from the tensor's first byte
  uint64_t bytes = 0;
};

// One part of every expert of a layer, as the GGUF file has it.
struct GgufExpertPart {
  ExpertPart part = ExpertPart::kW1;
  std::vector<const GgufTensor*> tensors;  // one with all experts, or one an expert
  uint64_t bytes = 0;                      // of one expert's part
  uint64_t offset = 0;                     // of the first expert's part in its tensor
  uint64_t stride = 0;                     // to the next expert's, where one tensor has them all

  GgufExtent Extent(int32_t expert) const;
};

// The routed experts of one layer.
struct GgufExpertLayer {
  int32_t layer = 0;
  int32_t expert_count = 0;
  std::vector<GgufExpertPart> parts;  // in the order of an expert's bytes
  ExpertLayout layout;
};

// Which experts' bytes a tensor holds.
struct ExpertTensorPlace {
  int32_t layer = 0;
  std::vector<ExpertPart> parts;  // two where gate and up are fused
  int32_t expert = -1;            // -1: all of the layer
};

// The layer of "blk.12.ffn_norm.weight"; -1 for tensors outside the layers.
int32_t LayerOfTensor(absl::string_view name);
// Nothing: not a routed expert's weight or bias.
std::optional<ExpertTensorPlace> PlaceOfExpertTensor(absl::string_view name);

// Finds and checks the experts of a layer. The names that are looked for and not there are appended
// to `missing`, and the layer is then not whole.
// DATA_LOSS: shapes that do not fit each other or the count. UNIMPLEMENTED: experts of one layer
// that differ in format.
absl::StatusOr<GgufExpertLayer> FindExperts(const GgufModel& model, int32_t layer,
                                            int32_t expert_count,
                                            std::vector<std::string>& missing);

// The routed experts of all layers that have any, ascending; none in a dense model.
// NOT_FOUND: expert tensors are missing; the message has the names looked for and the nearest
// found. DATA_LOSS: shapes that contradict the metadata. UNIMPLEMENTED: as FindExperts.
absl::StatusOr<std::vector<GgufExpertLayer>> FindExpertLayers(const GgufModel& model);

}  // namespace odmoe
