#include "converter/bitnet/kernel_header.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace odmoe {
namespace {

// What both kinds need of the runtime's own types and variables.
constexpr char kCommon[] = R"(#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "ggml-bitnet.h"

#define GGML_BITNET_MAX_NODES 8192
static bool initialized = false;
static bitnet_tensor_extra * bitnet_tensor_extras = nullptr;
static size_t bitnet_tensor_extras_index = 0;

static bool is_type_supported(enum ggml_type type) {
    return type == GGML_TYPE_Q4_0 || type == $TYPE;
}

// What the activations are multiplied by to become whole numbers of 8 bits.
static float odmoe_activation_scale(const float * x, int count) {
    float largest = 0.0f;
    for (int i = 0; i < count; ++i) largest = std::fmax(largest, std::fabs(x[i]));
    return largest > 0.0f ? 127.0f / largest : 0.0f;
}

static int odmoe_rounded(float x, float scale) { return (int) std::nearbyint(x * scale); }

// Sums of a pair of activations, by index: -1 -1, -1 0, -1 1, 0 -1, ... 1 1.
static void odmoe_pair_sums(const float * x, float scale, int16_t * sums) {
    const int a = odmoe_rounded(x[0], scale), b = odmoe_rounded(x[1], scale);
    for (int i = 0; i < 9; ++i) sums[i] = (int16_t) ((i / 3 - 1) * a + (i % 3 - 1) * b);
}
)";

constexpr char kTL1[] = R"(
// Rows of one block: `a` is its tiles, `sums` nine sums a pair of columns.
template <int K, int BM, int BK, int LANES>
static void odmoe_tl1_block(const uint8_t * a, const int16_t * sums, float factor, float * out) {
    int32_t totals[BM] = {0};
    for (int block = 0; block < K; block += BK) {
        for (int group = 0; group < BM; group += LANES) {
            for (int column = block; column < block + BK; column += 256 / LANES) {
                for (int lane = 0; lane < LANES; lane += 16) {
                    for (int four = 0; four < 256 / LANES; four += 4, a += 16) {
                        const int16_t * first = sums + (column + four) / 2 * 9;
                        for (int i = 0; i < 16; ++i) {
                            totals[group + lane + i] += first[a[i] >> 4] + first[9 + (a[i] & 15)];
                        }
                    }
                }
            }
        }
    }
    for (int i = 0; i < BM; ++i) out[i] = (float) totals[i] * factor;
}

void ggml_preprocessor(int m, int k, void * B, void * LUT_Scales, void * QLUT) {
    (void) m;
    const float * x = (const float *) B;
    const float scale = odmoe_activation_scale(x, k);
    *(float *) LUT_Scales = scale;
    for (int i = 0; i < k / 2; ++i) odmoe_pair_sums(x + 2 * i, scale, (int16_t *) QLUT + 9 * i);
}

void ggml_qgemm_lut(int m, int k, void * A, void * LUT, void * Scales, void * LUT_Scales,
                    void * C) {
    const float scale = *(const float *) LUT_Scales;
    const float factor = scale > 0.0f ? *(const float *) Scales / scale : 0.0f;
$CALLS}

static int64_t odmoe_weight_bytes(int64_t m, int64_t k) { return m * k / 4; }
)";

constexpr char kTL2[] = R"(
// In a vector of 32 rows, 8 to 15 and 16 to 23 have changed places.
static int odmoe_place(int row) {
    return row < 8 || row >= 24 ? row : row < 16 ? row + 8 : row - 8;
}

// Columns in triples: `a` is a block of rows' sizes, `signs` their signs, `sums` 16 a triple.
template <int K3, int BM, int BK>
static void odmoe_tl2_triples(const uint8_t * a, const uint8_t * signs, const int16_t * sums,
                              int32_t * out) {
    for (int i = 0; i < BM; ++i) out[i] = 0;
    for (int block = 0; block < K3; block += BK) {
        for (int group = 0; group < BM; group += 32) {
            for (int column = 0; column < BK; column += 6, a += 32) {
                const int16_t * first = sums + (block + column) / 3 * 16;
                const int triple = column / 3 % 8;
                for (int row = 0; row < 32; ++row) {
                    uint16_t word;
                    std::memcpy(&word, signs + 2 * (row % 16), sizeof(word));
                    const int shift = 15 - 2 * triple - row / 16;
                    const int index = a[odmoe_place(row)];
                    const int x = first[index >> 4], y = first[16 + (index & 15)];
                    out[group + row] += ((word >> shift) & 1 ? -x : x) +
                                        ((word >> (shift - 2)) & 1 ? -y : y);
                }
                if (triple == 6) signs += 32;
            }
        }
    }
}

// The other columns in pairs, on top of what the triples gave; then all of it as floats.
template <int K2, int BM>
static void odmoe_tl2_pairs(const uint8_t * a, const int16_t * sums, float factor, void * c) {
    int32_t totals[BM];
    std::memcpy(totals, c, sizeof(totals));
    for (int block = 0; block < K2; block += 32) {
        for (int group = 0; group < BM; group += 32) {
            for (int column = block; column < block + 32; column += 4, a += 32) {
                const int16_t * first = sums + column / 2 * 16;
                for (int row = 0; row < 32; ++row) {
                    const int index = a[odmoe_place(row)];
                    totals[group + row] += first[index >> 4] + first[16 + (index & 15)];
                }
            }
        }
    }
    float * out = (float *) c;
    for (int i = 0; i < BM; ++i) out[i] = (float) totals[i] * factor;
}

// Index 9a + 3b + c of a triple whose first weight that is not 0 is 1.
static void odmoe_triple_sums(const float * x, float scale, int16_t * sums) {
    const int a = odmoe_rounded(x[0], scale), b = odmoe_rounded(x[1], scale),
              c = odmoe_rounded(x[2], scale);
    for (int i = 0; i < 14; ++i) {
        const int digits = i + 13;
        sums[i] = (int16_t) ((digits / 9 - 1) * a + (digits / 3 % 3 - 1) * b +
                             (digits % 3 - 1) * c);
    }
}

void ggml_preprocessor(int bs, int m, int three_k, int two_k, void * B, void * LUT_Scales,
                       void * Three_QLUT, void * Two_QLUT) {
    (void) m;
    for (int t = 0; t < bs; ++t) {
        const float * x = (const float *) B + (int64_t) t * (three_k + two_k);
        const float scale = odmoe_activation_scale(x, three_k + two_k);
        ((float *) LUT_Scales)[t] = scale;
        int16_t * triples = (int16_t *) Three_QLUT + (int64_t) t * three_k / 3 * 16;
        int16_t * pairs = (int16_t *) Two_QLUT + (int64_t) t * two_k / 2 * 16;
        for (int i = 0; i < three_k / 3; ++i) odmoe_triple_sums(x + 3 * i, scale, triples + 16 * i);
        for (int i = 0; i < two_k / 2; ++i) {
            odmoe_pair_sums(x + three_k + 2 * i, scale, pairs + 16 * i);
        }
    }
}

// The runtime calls it for one token: first with BK the columns in triples, then those in pairs.
void ggml_qgemm_lut(int bs, int m, int k, int BK, void * A, void * sign, void * LUT, void * Scales,
                    void * LUT_Scales, void * C) {
    (void) bs;
    const float scale = *(const float *) LUT_Scales;
    const float factor = scale > 0.0f ? *(const float *) Scales / scale : 0.0f;
$CALLS}

static int64_t odmoe_weight_bytes(int64_t m, int64_t k) {
    const int64_t bytes = (k - 256) * m / 3 * 5 / 8 + 256 * m / 2 * 4 / 8;
    return (bytes + 31) / 32 * 32;
}
)";

constexpr char kTransform[] = R"(
// Tells the runtime a weight's tiling; its scale lies behind it.
void ggml_bitnet_transform_tensor(struct ggml_tensor * tensor) {
    if (!is_type_supported(tensor->type) || tensor->extra != nullptr) return;
    const int64_t k = tensor->ne[0], m = tensor->ne[1];
    int bm = 0, bk = 0;
$TILINGS    if (bm == 0 || bitnet_tensor_extras_index >= GGML_BITNET_MAX_NODES) return;
    bitnet_float_type * scale = (bitnet_float_type *) std::malloc(sizeof(bitnet_float_type));
    if (scale == nullptr) return;
    std::memcpy(scale, (const char *) tensor->data + odmoe_weight_bytes(m, k), sizeof(*scale));
    bitnet_tensor_extra * extra = bitnet_tensor_extras + bitnet_tensor_extras_index++;
    extra->lut_scales_size = 1;
    extra->BK = bk;
    extra->n_tile_num = (int) (m / bm);
    extra->qweights = (uint8_t *) tensor->data;
    extra->scales = scale;
    tensor->extra = extra;
}
)";

std::string CallTL1(const KernelShape& s) {
  return absl::StrFormat(
      "    if (m == %d && k == %d) {\n"
      "        odmoe_tl1_block<%d, %d, %d, %d>((const uint8_t *) A, (const int16_t *) LUT, "
      "factor,\n"
      "                                        (float *) C);\n"
      "    }\n",
      s.rows, s.columns, s.columns, s.block_rows, s.block_columns, s.lane_rows);
}

std::string CallTL2(const KernelShape& s) {
  const int64_t pairs = s.columns % s.block_columns;
  const int64_t triples = s.columns - pairs;
  return absl::StrFormat(
      "    if (m == %d && k == %d) {\n"
      "        if (BK == %d) {\n"
      "            odmoe_tl2_triples<%d, %d, %d>((const uint8_t *) A, (const uint8_t *) sign,\n"
      "                                          (const int16_t *) LUT, (int32_t *) C);\n"
      "        } else if (BK == %d) {\n"
      "            odmoe_tl2_pairs<%d, %d>((const uint8_t *) A, (const int16_t *) LUT, factor, "
      "C);\n"
      "        }\n"
      "    }\n",
      s.rows, s.columns, triples, triples, s.block_rows, s.block_columns, pairs, pairs,
      s.block_rows);
}

}  // namespace

std::string MakeKernelHeader(const KernelConfig& config) {
  const bool tl1 = config.dtype == DType::kTL1;
  std::string calls, tilings;
  for (const KernelShape& s : config.shapes) {
    absl::StrAppend(&calls, tl1 ? CallTL1(s) : CallTL2(s));
    absl::StrAppendFormat(&tilings, "    if (m == %d && k == %d) { bm = %d; bk = %d; }\n", s.rows,
                          s.columns, s.block_rows, s.block_columns);
  }
  const char* guard = tl1 ? "GGML_BITNET_ARM_TL1" : "GGML_BITNET_X86_TL2";
  return absl::StrCat(
      "// Written by odmoe bitnet kernels for the tilings ", KernelHash(config),
      ", which weights in ", Info(config.dtype).name, " are bound to.\n#if defined(", guard, ")\n",
      absl::StrReplaceAll(kCommon, {{"$TYPE", tl1 ? "GGML_TYPE_TL1" : "GGML_TYPE_TL2"}}),
      absl::StrReplaceAll(tl1 ? kTL1 : kTL2, {{"$CALLS", calls}}),
      absl::StrReplaceAll(kTransform, {{"$TILINGS", tilings}}), "#endif  // ", guard, "\n");
}

}  // namespace odmoe
