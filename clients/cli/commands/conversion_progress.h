// A conversion's progress as the console shows it.
#pragma once

#include "clients/cli/console/progress.h"
#include "converter/convert.h"

namespace odmoe {

inline ProgressState ToProgressState(const ConvertProgress& progress) {
  ProgressState state;
  state.step = progress.step;
  state.step_number = progress.step_number;
  state.step_count = progress.step_count;
  state.done_bytes = progress.done_bytes;
  state.total_bytes = progress.total_bytes;
  state.item = progress.item;
  return state;
}

}  // namespace odmoe
