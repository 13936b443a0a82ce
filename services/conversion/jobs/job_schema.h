// The job database's layout on disk.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "services/conversion/jobs/sqlite_database.h"

namespace odmoe {

// Creates the tables in an empty database, brings an older layout up to date, and refuses what is
// not a job database or is newer than this program.
absl::Status PrepareSchema(SqliteDatabase& database, const std::string& path);

}  // namespace odmoe
