// One SQLite connection and its prepared statements: the C interface, with absl::Status for errors.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/base/status_macros.h"

namespace odmoe {

// A prepared statement in use: its parameters are bound and its rows are stepped through. When it
// dies the statement is reset and ready for its next use. Not thread-safe; lives shorter than the
// database.
class SqliteQuery {
 public:
  SqliteQuery(sqlite3* connection, sqlite3_stmt* statement)
      : connection_(connection), statement_(statement) {}
  SqliteQuery(SqliteQuery&& other) noexcept;
  SqliteQuery& operator=(SqliteQuery&&) = delete;
  ~SqliteQuery();

  // True: there is a row, and the accessors below read it. False: the statement is done.
  absl::StatusOr<bool> Step();

  // Columns count from 0. A value of another type is converted as SQLite does.
  bool IsNull(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  int64_t Integer(int column) const { return sqlite3_column_int64(statement_, column); }
  double Real(int column) const { return sqlite3_column_double(statement_, column); }
  std::string Text(int column) const;

  // Parameters count from 1. Text is copied.
  absl::Status BindOne(int index, int64_t value);
  absl::Status BindOne(int index, double value);
  absl::Status BindOne(int index, absl::string_view value);
  absl::Status BindOne(int index, std::optional<int64_t> value);

 private:
  sqlite3* connection_;
  sqlite3_stmt* statement_;
};

// Not thread-safe.
class SqliteDatabase {
 public:
  // Opens or creates, in WAL mode with synchronous=FULL: what was committed survives a power cut,
  // and readers in other processes do not wait for a writer. A lock held by another process is
  // waited for, ten seconds at most.
  // INVALID_ARGUMENT: the file is not an SQLite database. DATA_LOSS: it is damaged. NOT_FOUND,
  // PERMISSION_DENIED: it cannot be opened.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& path);
  ~SqliteDatabase();
  SqliteDatabase(const SqliteDatabase&) = delete;
  SqliteDatabase& operator=(const SqliteDatabase&) = delete;

  // A statement with its parameters bound: int64_t, double, absl::string_view, or
  // std::optional<int64_t> for a value or NULL. `sql` is prepared on its first use.
  template <typename... Arguments>
  absl::StatusOr<SqliteQuery> Query(const char* sql, const Arguments&... arguments) {
    ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, Prepare(sql));
    absl::Status bound;
    int index = 0;
    ((bound.ok() ? void(bound = query.BindOne(++index, arguments)) : void()), ...);
    if (!bound.ok()) return bound;
    return query;
  }

  // Runs a statement for its effect; returns the number of rows it changed.
  template <typename... Arguments>
  absl::StatusOr<int> Run(const char* sql, const Arguments&... arguments) {
    ODMOE_ASSIGN_OR_RETURN(SqliteQuery query, Query(sql, arguments...));
    ODMOE_RETURN_IF_ERROR(query.Step().status());
    return sqlite3_changes(connection_);
  }

  // The row that the last INSERT made.
  int64_t last_inserted_row() const { return sqlite3_last_insert_rowid(connection_); }

  // Runs several statements without parameters.
  absl::Status Execute(const std::string& sql);

 private:
  struct StatementDeleter {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };

  explicit SqliteDatabase(sqlite3* connection) : connection_(connection) {}
  absl::StatusOr<SqliteQuery> Prepare(const char* sql);

  sqlite3* connection_;
  std::unordered_map<std::string, std::unique_ptr<sqlite3_stmt, StatementDeleter>> statements_;
};

// BEGIN IMMEDIATE on creation, so that what is read stays true until the write; rolled back when
// it dies without Commit.
class SqliteTransaction {
 public:
  static absl::StatusOr<SqliteTransaction> Begin(SqliteDatabase& database);
  SqliteTransaction(SqliteTransaction&& other) noexcept;
  SqliteTransaction& operator=(SqliteTransaction&&) = delete;
  ~SqliteTransaction();
  absl::Status Commit();

 private:
  explicit SqliteTransaction(SqliteDatabase& database) : database_(&database) {}
  SqliteDatabase* database_;
};

}  // namespace odmoe
