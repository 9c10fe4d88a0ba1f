#include "actors/ledger/transaction_rows.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

template <size_t N>
bool take(const sqlite::cursor& row, int column, std::optional<std::array<uint8_t, N>>& out) {
  out.reset();
  if (row.is_null(column))
    return true;
  const auto bytes = row.bytes(column);
  if (bytes.size() != N)
    return false;
  out.emplace();
  std::copy(bytes.begin(), bytes.end(), out->begin());
  return true;
}

bool take(const sqlite::cursor& row, int column, kernels::digest& out) {
  const auto bytes = row.bytes(column);
  if (bytes.size() != out.size())
    return false;
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return true;
}

bool take(const sqlite::cursor& row, int column, neuro_amount& out) {
  const auto bytes = row.bytes(column);
  out = {};
  for (const uint8_t byte : bytes)
    out.atto = out.atto << 8 | byte;
  return bytes.size() == 16;
}

constexpr size_t line_bytes = 25;
constexpr uint8_t takes = 0x80;

void append_big_endian(std::vector<uint8_t>& to, unsigned __int128 value, size_t bytes) {
  for (size_t i = bytes; i-- > 0;)
    to.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

unsigned __int128 big_endian(sqlite::blob bytes) {
  unsigned __int128 value = 0;
  for (const uint8_t byte : bytes)
    value = value << 8 | byte;
  return value;
}

} // namespace

void append_line(std::vector<uint8_t>& to, const posting_line& line) {
  append_big_endian(to, static_cast<uint64_t>(line.account_id), 8);
  to.push_back(static_cast<uint8_t>(static_cast<uint8_t>(line.part) | (line.negative ? takes : 0)));
  append_big_endian(to, line.amount.atto, 16);
}

bool read_lines(sqlite::blob from, std::vector<posting_line>& out) {
  out.clear();
  if (from.empty() || from.size() % line_bytes != 0)
    return false;
  for (; !from.empty(); from = from.subspan(line_bytes)) {
    const uint8_t part = from[8];
    out.push_back({static_cast<int64_t>(big_endian(from.first(8))),
                   static_cast<account_part>(part & ~takes),
                   (part & takes) != 0,
                   {big_endian(from.subspan(9, 16))}});
  }
  return true;
}

account_names::account_names(sqlite::connection& db) {
  sqlite::statement read(db, "SELECT id, address FROM accounts ORDER BY id");
  for (auto row = read.query(); row.next();) {
    const int64_t id = row.integer(0);
    // Ids are given out one after the other; an edited file must not make this allocate without bound.
    if (id <= 0 || id > static_cast<int64_t>(names_.size()) + 1'000'000)
      continue;
    names_.resize(std::max(names_.size(), static_cast<size_t>(id) + 1));
    names_[static_cast<size_t>(id)] = row.text(1);
  }
}

const std::string& account_names::of(int64_t id) const {
  static const std::string none;
  return id > 0 && id < static_cast<int64_t>(names_.size()) ? names_[static_cast<size_t>(id)] : none;
}

bool read_transaction(const sqlite::cursor& row, transaction& out, int64_t& from_id, int64_t& to_id) {
  out.seq = static_cast<uint64_t>(row.integer(0));
  out.kind = static_cast<transaction_kind>(row.integer(2));
  from_id = row.integer(3);
  to_id = row.integer(4);
  out.nonce = static_cast<uint64_t>(row.integer(8));
  out.timestamp_us = row.integer(9);
  out.memo = row.text(10);
  auto refs = parse_references(row.text(11));
  if (refs)
    out.refs = std::move(*refs);
  return refs && row.integer(2) >= 1 && row.integer(2) <= 11 && take(row, 1, out.id) &&
         take(row, 5, out.amount) && take(row, 6, out.fee) && take(row, 7, out.burned) &&
         take(row, 12, out.key) && take(row, 13, out.sig) && take(row, 14, out.hash);
}

} // namespace neuroshard
