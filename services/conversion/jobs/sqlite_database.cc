#include "services/conversion/jobs/sqlite_database.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

absl::StatusCode CodeOf(int sqlite_code) {
  switch (sqlite_code & 0xff) {
    case SQLITE_NOTADB: return absl::StatusCode::kInvalidArgument;
    case SQLITE_CORRUPT: return absl::StatusCode::kDataLoss;
    case SQLITE_CANTOPEN: return absl::StatusCode::kNotFound;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH: return absl::StatusCode::kPermissionDenied;
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG: return absl::StatusCode::kResourceExhausted;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return absl::StatusCode::kUnavailable;
    case SQLITE_IOERR: return absl::StatusCode::kDataLoss;
    case SQLITE_CONSTRAINT: return absl::StatusCode::kAlreadyExists;
    default: return absl::StatusCode::kInternal;
  }
}

absl::Status ErrorOf(sqlite3* connection, int code) {
  const char* file = connection == nullptr ? nullptr : sqlite3_db_filename(connection, nullptr);
  const char* reason = connection == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(connection);
  return absl::Status(CodeOf(code),
                      absl::StrCat("job database ", file == nullptr ? "" : file, ": ", reason));
}

absl::Status CheckBind(sqlite3* connection, int code) {
  return code == SQLITE_OK ? absl::OkStatus() : ErrorOf(connection, code);
}

}  // namespace

SqliteQuery::SqliteQuery(SqliteQuery&& other) noexcept
    : connection_(other.connection_), statement_(std::exchange(other.statement_, nullptr)) {}

SqliteQuery::~SqliteQuery() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

absl::StatusOr<bool> SqliteQuery::Step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return ErrorOf(connection_, code);
}

std::string SqliteQuery::Text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  const int size = sqlite3_column_bytes(statement_, column);
  return text == nullptr ? std::string() : std::string(text, size);
}

absl::Status SqliteQuery::BindOne(int index, int64_t value) {
  return CheckBind(connection_, sqlite3_bind_int64(statement_, index, value));
}

absl::Status SqliteQuery::BindOne(int index, double value) {
  return CheckBind(connection_, sqlite3_bind_double(statement_, index, value));
}

absl::Status SqliteQuery::BindOne(int index, absl::string_view value) {
  const char* text = value.data() == nullptr ? "" : value.data();  // a null pointer would bind NULL
  return CheckBind(connection_, sqlite3_bind_text64(statement_, index, text, value.size(),
                                                    SQLITE_TRANSIENT, SQLITE_UTF8));
}

absl::Status SqliteQuery::BindOne(int index, std::optional<int64_t> value) {
  if (value) return BindOne(index, *value);
  return CheckBind(connection_, sqlite3_bind_null(statement_, index));
}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(const std::string& path) {
  sqlite3* connection = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int code = sqlite3_open_v2(path.c_str(), &connection, flags, nullptr);
  std::unique_ptr<SqliteDatabase> database(new SqliteDatabase(connection));
  if (code != SQLITE_OK) {
    return absl::Status(CodeOf(code), absl::StrCat("job database ", path, ": ",
                                                   connection == nullptr
                                                       ? sqlite3_errstr(code)
                                                       : sqlite3_errmsg(connection)));
  }
  sqlite3_extended_result_codes(connection, 1);
  sqlite3_busy_timeout(connection, 10'000);
  ODMOE_RETURN_IF_ERROR(database->Execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"));
  return database;
}

SqliteDatabase::~SqliteDatabase() {
  statements_.clear();
  sqlite3_close_v2(connection_);
}

absl::StatusOr<SqliteQuery> SqliteDatabase::Prepare(const char* sql) {
  auto& statement = statements_[sql];
  if (statement == nullptr) {
    sqlite3_stmt* prepared = nullptr;
    const int code =
        sqlite3_prepare_v3(connection_, sql, -1, SQLITE_PREPARE_PERSISTENT, &prepared, nullptr);
    if (code != SQLITE_OK) return ErrorOf(connection_, code);
    statement.reset(prepared);
  }
  return SqliteQuery(connection_, statement.get());
}

absl::Status SqliteDatabase::Execute(const std::string& sql) {
  const int code = sqlite3_exec(connection_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : ErrorOf(connection_, code);
}

absl::StatusOr<SqliteTransaction> SqliteTransaction::Begin(SqliteDatabase& database) {
  ODMOE_RETURN_IF_ERROR(database.Run("BEGIN IMMEDIATE").status());
  return SqliteTransaction(database);
}

SqliteTransaction::SqliteTransaction(SqliteTransaction&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)) {}

SqliteTransaction::~SqliteTransaction() {
  if (database_ != nullptr) database_->Run("ROLLBACK").IgnoreError();
}

absl::Status SqliteTransaction::Commit() {
  ODMOE_RETURN_IF_ERROR(database_->Run("COMMIT").status());
  database_ = nullptr;
  return absl::OkStatus();
}

}  // namespace odmoe
