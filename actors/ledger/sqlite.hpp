#pragma once

#include "actors/common/error.hpp"
#include "actors/common/money.hpp"
#include "kernels/core/sha256.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

/// A thin, typed layer over SQLite: no exceptions. A connection remembers its first failure (`fault`); every
/// later statement of it does nothing and finds nothing, so that a group of statements is judged once, at its
/// end. One thread at a time.
namespace neuroshard::sqlite {

/// Bytes to be bound as a BLOB; must live until the statement is reset.
using blob = std::span<const uint8_t>;

class statement;

class connection {
public:
  enum class mode : uint8_t { read_write, read_only };
  connection() = default;
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;
  ~connection();

  /// Opens the file; read_write makes it (mode 0600) where it is missing and refuses a file that cannot be
  /// written.
  caf::error open(const std::string& path, mode how);
  void close();
  bool is_open() const noexcept { return db_ != nullptr; }

  /// Runs statements without results.
  bool execute(const char* sql);
  /// Nothing, or what went wrong first: storage or data_loss.
  caf::error fault() const;
  bool faulty() const noexcept { return code_ != 0; }
  void clear_fault() noexcept;
  int64_t last_row_id() const noexcept;
  int64_t changes() const noexcept;

private:
  friend class statement;
  friend class cursor;
  void note(int code);

  sqlite3* db_ = nullptr;
  int code_ = 0;
  std::string message_;
  std::string path_;
};

/// The rows of a running query; resets its statement when it goes. Text and blobs are valid until the next
/// `next`.
class cursor {
public:
  cursor(connection& of, sqlite3_stmt* running) : of_(&of), running_(running) {}
  cursor(const cursor&) = delete;
  cursor& operator=(const cursor&) = delete;
  ~cursor();

  /// Whether there is a further row.
  bool next();
  bool is_null(int column) const;
  int64_t integer(int column) const;
  std::string_view text(int column) const;
  blob bytes(int column) const;
  /// 16 big-endian bytes; any other length is damage, noted as a fault.
  neuro_amount amount(int column) const;
  kernels::digest digest(int column) const;

private:
  connection* of_;
  sqlite3_stmt* running_;
};

/// A prepared statement. Values: integers, text, blobs, amounts (16-byte big-endian BLOB), digests, nullptr,
/// optionals of these.
class statement {
public:
  statement() = default;
  statement(connection& on, const char* sql);
  statement(statement&& other) noexcept;
  statement& operator=(statement&& other) noexcept;
  ~statement();

  /// Runs it to its end.
  template <class... Ts>
  bool run(const Ts&... values) {
    return bind_all(values...) && finish();
  }
  /// Starts it; go through the rows with next().
  template <class... Ts>
  cursor query(const Ts&... values) {
    (void)bind_all(values...);
    return {*on_, prepared_};
  }

private:
  static constexpr size_t values_max = 24;

  template <class... Ts>
  bool bind_all(const Ts&... values) {
    static_assert(sizeof...(Ts) <= values_max);
    at_ = 0;
    if (prepared_ == nullptr || on_->faulty())
      return false;
    (bind(values), ...);
    return !on_->faulty();
  }
  void bind(int64_t value);
  void bind(uint64_t value);
  void bind(int value) { bind(static_cast<int64_t>(value)); }
  void bind(uint32_t value) { bind(static_cast<int64_t>(value)); }
  void bind(bool value) { bind(static_cast<int64_t>(value)); }
  void bind(std::string_view value);
  void bind(const std::string& value) { bind(std::string_view(value)); }
  void bind(const char* value) { bind(std::string_view(value)); }
  void bind(blob value);
  void bind(neuro_amount value);
  void bind(const kernels::digest& value) { bind(blob(value)); }
  void bind(std::nullptr_t);
  template <class T>
  void bind(const std::optional<T>& value) {
    if (value)
      bind(*value);
    else
      bind(nullptr);
  }
  bool finish();

  connection* on_ = nullptr;
  sqlite3_stmt* prepared_ = nullptr;
  int at_ = 0;
  std::array<std::array<uint8_t, 16>, values_max> amounts_{};
};

/// What a result code means, in words for operators and clients: of the path they have the file's name.
caf::error error_of(int code, const std::string& message, const std::string& path);

} // namespace neuroshard::sqlite
