#include "actors/ledger/sqlite.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace neuroshard::sqlite {

namespace {

constexpr int busy_ms = 5'000;

uint8_t* put_big_endian(unsigned __int128 value, uint8_t* out) {
  for (int i = 15; i >= 0; --i, value >>= 8)
    out[i] = static_cast<uint8_t>(value);
  return out;
}

} // namespace

caf::error error_of(int code, const std::string& message, const std::string& path) {
  problem what;
  // Clients are told of it: where files lie on the server is none of their business.
  const std::string name = path.substr(path.rfind('/') + 1);
  switch (code & 0xff) {
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
  case SQLITE_MISMATCH:
    what.message = name + " is damaged: " + message + ".";
    what.reason = "corrupt";
    return refuse(errc::data_loss, std::move(what));
  case SQLITE_FULL:
    what.message = name + ": the disk is full.";
    what.reason = "disk_full";
    break;
  case SQLITE_READONLY:
  case SQLITE_PERM:
  case SQLITE_CANTOPEN:
    what.message = name + " cannot be opened for writing: " + message + ".";
    what.reason = "read_only";
    break;
  case SQLITE_BUSY:
  case SQLITE_LOCKED:
    what.message = name + " is in use by another program.";
    what.reason = "locked";
    break;
  default:
    what.message = name + ": " + message + ".";
    what.reason = "io";
  }
  return refuse(errc::storage, std::move(what));
}

// -- connection
// --------------------------------------------------------------------------------------------------

connection::~connection() {
  close();
}

caf::error connection::open(const std::string& path, mode how) {
  close();
  path_ = path;
  clear_fault();
  if (how == mode::read_write) {
    // SQLite would make it readable to others. Its journal files take the mode of this one.
    const int made = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (made < 0)
      return error_of(errno == ENOSPC ? SQLITE_FULL : SQLITE_CANTOPEN, std::strerror(errno), path);
    ::close(made);
  }
  const int flags = (how == mode::read_write ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY) |
                    SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  int code = sqlite3_open_v2(path.c_str(), &db_, flags, nullptr);
  // A file that may not be written is opened for reading without a word.
  if (code == SQLITE_OK && how == mode::read_write && sqlite3_db_readonly(db_, "main") == 1)
    code = SQLITE_READONLY;
  if (code != SQLITE_OK) {
    const std::string message =
        db_ != nullptr && code != SQLITE_READONLY ? sqlite3_errmsg(db_) : sqlite3_errstr(code);
    close();
    return error_of(code, message, path);
  }
  sqlite3_busy_timeout(db_, busy_ms);
  return {};
}

void connection::close() {
  if (db_ != nullptr)
    sqlite3_close_v2(db_); // Statements still prepared keep it until they go.
  db_ = nullptr;
}

bool connection::execute(const char* sql) {
  if (faulty() || db_ == nullptr)
    return false;
  note(sqlite3_exec(db_, sql, nullptr, nullptr, nullptr));
  return !faulty();
}

void connection::note(int code) {
  if (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE || faulty())
    return;
  code_ = code;
  message_ =
      db_ != nullptr && sqlite3_extended_errcode(db_) == code ? sqlite3_errmsg(db_) : sqlite3_errstr(code);
}

caf::error connection::fault() const {
  return faulty() ? error_of(code_, message_, path_) : caf::error{};
}

void connection::clear_fault() noexcept {
  code_ = 0;
  message_.clear();
}

int64_t connection::last_row_id() const noexcept {
  return sqlite3_last_insert_rowid(db_);
}
int64_t connection::changes() const noexcept {
  return sqlite3_changes64(db_);
}

// -- cursor
// ------------------------------------------------------------------------------------------------------

cursor::~cursor() {
  if (running_ != nullptr)
    sqlite3_reset(running_);
}

bool cursor::next() {
  if (running_ == nullptr || of_->faulty())
    return false;
  const int code = sqlite3_step(running_);
  of_->note(code);
  return code == SQLITE_ROW;
}

bool cursor::is_null(int column) const {
  return sqlite3_column_type(running_, column) == SQLITE_NULL;
}
int64_t cursor::integer(int column) const {
  return sqlite3_column_int64(running_, column);
}

std::string_view cursor::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(running_, column));
  if (text == nullptr)
    return {};
  return {text, static_cast<size_t>(sqlite3_column_bytes(running_, column))};
}

blob cursor::bytes(int column) const {
  const auto* bytes = static_cast<const uint8_t*>(sqlite3_column_blob(running_, column));
  return {bytes, static_cast<size_t>(sqlite3_column_bytes(running_, column))};
}

neuro_amount cursor::amount(int column) const {
  const blob from = bytes(column);
  neuro_amount value;
  if (from.size() != 16) {
    of_->note(SQLITE_CORRUPT);
    return value;
  }
  for (const uint8_t byte : from)
    value.atto = value.atto << 8 | byte;
  return value;
}

kernels::digest cursor::digest(int column) const {
  const blob from = bytes(column);
  kernels::digest value{};
  if (from.size() != value.size())
    of_->note(SQLITE_CORRUPT);
  else
    std::memcpy(value.data(), from.data(), value.size());
  return value;
}

// -- statement
// ---------------------------------------------------------------------------------------------------

statement::statement(connection& on, const char* sql) : on_(&on) {
  if (on.faulty() || on.db_ == nullptr)
    return;
  on.note(sqlite3_prepare_v3(on.db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &prepared_, nullptr));
}

statement::statement(statement&& other) noexcept
    : on_(other.on_), prepared_(std::exchange(other.prepared_, nullptr)) {}

statement& statement::operator=(statement&& other) noexcept {
  std::swap(on_, other.on_);
  std::swap(prepared_, other.prepared_);
  return *this;
}

statement::~statement() {
  sqlite3_finalize(prepared_);
}

void statement::bind(int64_t value) {
  on_->note(sqlite3_bind_int64(prepared_, ++at_, value));
}

void statement::bind(uint64_t value) {
  // Callers bound their numbers far below; one beyond would be stored as another number.
  if (value > INT64_MAX)
    on_->note(SQLITE_RANGE);
  bind(static_cast<int64_t>(value));
}

void statement::bind(std::string_view value) {
  on_->note(sqlite3_bind_text64(prepared_, ++at_, value.empty() ? "" : value.data(), value.size(),
                                SQLITE_STATIC, SQLITE_UTF8));
}

void statement::bind(blob value) {
  on_->note(sqlite3_bind_blob64(prepared_, ++at_,
                                value.empty() ? reinterpret_cast<const uint8_t*>("") : value.data(),
                                value.size(), SQLITE_STATIC));
}

void statement::bind(neuro_amount value) {
  const size_t slot = static_cast<size_t>(at_);
  bind(blob(put_big_endian(value.atto, amounts_[slot].data()), 16));
}

void statement::bind(std::nullptr_t) {
  on_->note(sqlite3_bind_null(prepared_, ++at_));
}

bool statement::finish() {
  const int code = sqlite3_step(prepared_);
  on_->note(code);
  sqlite3_reset(prepared_);
  return code == SQLITE_DONE || code == SQLITE_ROW;
}

} // namespace neuroshard::sqlite
