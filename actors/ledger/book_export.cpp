#include "actors/ledger/book_export.hpp"

#include "actors/ledger/schema.hpp"
#include "actors/ledger/sqlite.hpp"
#include "actors/ledger/transaction_rows.hpp"
#include "actors/ledger/utc_date.hpp"

#include <fmt/format.h>

#include <array>
#include <ostream>

namespace neuroshard {

namespace {

using sqlite::connection;
using sqlite::statement;

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out.append(1, '\\').append(1, c);
    else if (static_cast<uint8_t>(c) < 0x20)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      out.push_back(c);
  }
  return out + "\"";
}

/// Quoted where needed. A cell that begins like a formula gets a quote in front, so that no spreadsheet runs
/// a memo.
std::string csv_text(std::string_view text) {
  std::string cell(text);
  if (!cell.empty() && std::string_view("=+-@\t\r").find(cell[0]) != std::string_view::npos)
    cell.insert(cell.begin(), '\'');
  if (cell.find_first_of(",\"\r\n") == std::string::npos)
    return cell;
  std::string out = "\"";
  for (const char c : cell)
    out.append(c == '"' ? 2 : 1, c);
  return out + "\"";
}

void write_json(std::ostream& out, const transaction& of, const std::string& postings) {
  out << "{\"record\":\"transaction\",\"seq\":" << of.seq << ",\"tx_id\":\"" << kernels::to_hex(of.id)
      << "\",\"kind\":\"" << to_string(of.kind) << "\",\"from\":" << json_text(of.from)
      << ",\"to\":" << json_text(of.to) << ",\"amount\":\"" << to_decimal(of.amount) << "\",\"fee\":\""
      << to_decimal(of.fee) << "\",\"burned\":\"" << to_decimal(of.burned) << "\",\"nonce\":" << of.nonce
      << ",\"timestamp_us\":" << of.timestamp_us << ",\"timestamp\":\"" << timestamp_text(of.timestamp_us)
      << "\",\"memo\":" << json_text(of.memo) << ",\"refs\":" << json_text(reference_text(of.refs))
      << ",\"public_key\":\"" << (of.key ? kernels::to_hex(*of.key) : "") << "\",\"signature\":\""
      << (of.sig ? kernels::to_hex(*of.sig) : "") << "\",\"hash\":\"" << kernels::to_hex(of.hash)
      << "\",\"postings\":[" << postings << "]}\n";
}

void write_csv(std::ostream& out, const transaction& of) {
  out << of.seq << ',' << kernels::to_hex(of.id) << ',' << to_string(of.kind) << ',' << of.from << ','
      << of.to << ',' << to_decimal(of.amount) << ',' << to_decimal(of.fee) << ',' << to_decimal(of.burned)
      << ',' << of.nonce << ',' << timestamp_text(of.timestamp_us) << ',' << csv_text(of.memo) << ','
      << csv_text(reference_text(of.refs)) << ',' << kernels::to_hex(of.hash) << "\r\n";
}

/// Shares of settled generations and receipts, after the transactions; JSON lines only.
void write_work(connection& db, std::ostream& out) {
  statement shares(db,
                   "SELECT request_id, role, address, amount, receipt_id FROM shares ORDER BY request_id, n");
  for (auto row = shares.query(); row.next() && out;)
    out << "{\"record\":\"share\",\"request_id\":" << json_text(row.text(0))
        << ",\"role\":" << json_text(row.text(1)) << ",\"address\":" << json_text(row.text(2))
        << ",\"amount\":\"" << to_decimal(row.amount(3)) << "\",\"receipt_id\":" << json_text(row.text(4))
        << "}\n";
  statement receipts(
      db, "SELECT receipt_id, worker_node_id, driver_node_id, kind, work_id, confirmed, worker_blob, "
          "driver_blob FROM receipts ORDER BY received_us, receipt_id");
  for (auto row = receipts.query(); row.next() && out;)
    out << "{\"record\":\"receipt\",\"receipt_id\":\"" << kernels::to_hex(row.bytes(0))
        << "\",\"worker_node_id\":" << json_text(row.text(1))
        << ",\"driver_node_id\":" << json_text(row.text(2)) << ",\"kind\":" << row.integer(3)
        << ",\"work_id\":" << json_text(row.text(4))
        << ",\"confirmed\":" << (row.integer(5) != 0 ? "true" : "false") << ",\"worker_blob\":\""
        << kernels::to_hex(row.bytes(6)) << "\",\"driver_blob\":\"" << kernels::to_hex(row.bytes(7))
        << "\"}\n";
}

} // namespace

caf::error export_book(const std::string& path, export_format format, std::ostream& out) {
  connection db;
  if (auto failed = db.open(path, connection::mode::read_only))
    return failed;
  if (!db.execute("BEGIN"))
    return db.fault();
  if (auto failed = check_schema(db))
    return failed;
  const account_names names(db);
  if (format == export_format::csv)
    out << "seq,tx_id,kind,from,to,amount,fee,burned,nonce,timestamp,memo,refs,hash\r\n";
  const std::string sql =
      std::string("SELECT ") + transaction_columns + " FROM transactions t ORDER BY t.seq";
  statement transactions(db, sql.c_str());
  statement lines(db, "SELECT account_id, part, negative, amount FROM postings WHERE seq = ? ORDER BY n");
  for (auto row = transactions.query(); row.next() && out;) {
    transaction now;
    int64_t from_id = 0, to_id = 0;
    if (!read_transaction(row, now, from_id, to_id))
      return refuse(errc::data_loss, "Transaction " + std::to_string(row.integer(0)) + " is malformed.");
    now.from = names.of(from_id);
    now.to = names.of(to_id);
    if (format == export_format::csv) {
      write_csv(out, now);
      continue;
    }
    std::string postings;
    for (auto line = lines.query(now.seq); line.next();)
      postings += (postings.empty() ? "" : ",") +
                  fmt::format("{{\"account\":{},\"part\":\"{}\",\"delta\":\"{}{}\"}}",
                              json_text(names.of(line.integer(0))),
                              to_string(static_cast<account_part>(line.integer(1))),
                              line.integer(2) != 0 ? "-" : "", to_decimal(line.amount(3)));
    write_json(out, now, postings);
  }
  if (format == export_format::json_lines)
    write_work(db, out);
  return db.fault();
}

} // namespace neuroshard
