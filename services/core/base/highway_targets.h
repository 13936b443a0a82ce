// Which instruction sets code for Highway's targets is compiled for. To be included before any of
// Highway's headers, by every file that is compiled for each target: Highway's choice among them is
// an inline function of this list, of which a program has one copy, so all lists must be the same.
#pragma once

// Arrays of vectors, which our loops rest on, do not exist for vectors without a size.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
