#include "actors/ledger/book_export.hpp"

#include "actors/ledger/schema.hpp"
#include "actors/ledger/sqlite.hpp"
#include "actors/ledger/sqlite_receipt_store.hpp"
#include "actors/ledger/transaction_rows.hpp"
#include "actors/ledger/utc_date.hpp"
#include "actors/ledger/work_proof.hpp"

#include <fmt/format.h>

#include <ostream>
#include <utility>
#include <vector>

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

caf::error export_transactions(connection& db, export_format format, std::ostream& out) {
  const account_names names(db);
  if (format == export_format::csv)
    out << "seq,tx_id,kind,from,to,amount,fee,burned,nonce,timestamp,memo,refs,hash\r\n";
  const std::string sql =
      std::string("SELECT ") + transaction_columns + " FROM transactions t ORDER BY t.seq";
  statement transactions(db, sql.c_str());
  statement lines(db, "SELECT lines FROM postings WHERE seq = ?");
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
    std::vector<posting_line> made;
    auto of_it = lines.query(now.seq);
    if (of_it.next() && !read_lines(of_it.bytes(0), made))
      return refuse(errc::data_loss,
                    "The postings of transaction " + std::to_string(now.seq) + " are malformed.");
    for (const auto& line : made)
      postings += (postings.empty() ? "" : ",") +
                  fmt::format("{{\"account\":{},\"part\":\"{}\",\"delta\":\"{}{}\"}}",
                              json_text(names.of(line.account_id)), to_string(line.part),
                              line.negative ? "-" : "", to_decimal(line.amount));
    write_json(out, now, postings);
  }
  return {};
}

std::string_view text_of(sqlite::blob bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Lines of one kind of record: JSON objects with these names, or CSV under them.
class line_writer {
public:
  line_writer(std::ostream& out, export_format format, const char* record, std::vector<const char*> names)
      : out_(out), csv_(format == export_format::csv), record_(record), names_(std::move(names)) {
    for (size_t i = 0; csv_ && i < names_.size(); ++i)
      out_ << (i == 0 ? "" : ",") << names_[i] << (i + 1 == names_.size() ? "\r\n" : "");
  }

  line_writer& text(std::string_view value) { return put(csv_ ? csv_text(value) : json_text(value)); }
  line_writer& hex(sqlite::blob bytes) { return text(kernels::to_hex(bytes)); }
  template <class Integer>
  line_writer& number(Integer value) {
    return put(std::to_string(value));
  }
  line_writer& flag(bool value) { return put(value ? "true" : "false"); }
  void end() {
    if (csv_)
      out_ << cells_ << "\r\n";
    else
      out_ << "{\"record\":\"" << record_ << "\"," << cells_ << "}\n";
    cells_.clear();
    at_ = 0;
  }

private:
  line_writer& put(std::string_view cell) {
    if (at_ > 0)
      cells_.push_back(',');
    if (!csv_)
      cells_.append("\"").append(names_[at_]).append("\":");
    cells_.append(cell);
    ++at_;
    return *this;
  }

  std::ostream& out_;
  const bool csv_;
  const char* record_;
  const std::vector<const char*> names_;
  std::string cells_;
  size_t at_ = 0;
};

caf::error export_shares(connection& db, export_format format, std::ostream& out) {
  line_writer lines(out, format, "share", {"request_id", "role", "address", "amount", "receipt_id"});
  statement shares(db,
                   "SELECT request_id, role, address, amount, receipt_id FROM shares ORDER BY request_id, n");
  for (auto row = shares.query(); row.next() && out;)
    lines.text(row.text(0))
        .text(row.text(1))
        .text(row.text(2))
        .text(to_decimal(row.amount(3)))
        .text(row.text(4))
        .end();
  return {};
}

caf::error export_receipts(connection& db, export_format format, std::ostream& out) {
  line_writer lines(out, format, "receipt",
                    {"receipt_id",     "kind",          "work_id",     "worker_node_id", "worker_wallet",
                     "driver_node_id", "driver_wallet", "layer_begin", "layer_end",      "embedding",
                     "head",           "tokens",        "steps",       "model_version",  "started_unix_ms",
                     "ended_unix_ms",  "nonce",         "own",         "confirmed",      "received",
                     "proof_id",       "worker_blob",   "driver_blob"});
  statement receipts(
      db, "SELECT receipt_id, worker_blob, driver_blob, worker_wallet, driver_wallet, own, confirmed, "
          "received_us, proof_id FROM receipts ORDER BY received_us, receipt_id");
  for (auto row = receipts.query(); row.next() && out;) {
    const auto of = kept_receipt(row.bytes(1));
    if (!of)
      return refuse(errc::data_loss, "Receipt " + kernels::to_hex(row.bytes(0)) + " is malformed.");
    lines.hex(row.bytes(0)).text(to_string(of->kind)).text(of->work_id).text(of->worker_node_id);
    lines.text(row.text(3)).text(of->driver_node_id).text(row.text(4)).number(of->layer_begin);
    lines.number(of->layer_end).flag(of->embedding).flag(of->head).number(of->tokens).number(of->steps);
    lines.number(of->model_version).number(of->started_unix_ms).number(of->ended_unix_ms).hex(of->nonce);
    lines.flag(row.integer(5) != 0).flag(row.integer(6) != 0).text(timestamp_text(row.integer(7)));
    lines.hex(row.bytes(8)).hex(row.bytes(1)).hex(row.bytes(2)).end();
  }
  return {};
}

caf::error export_offences(connection& db, export_format format, std::ostream& out) {
  line_writer lines(out, format, "offence",
                    {"offence_id", "class", "node_id", "wallet", "recorded", "slashed", "tx_id", "evidence"});
  statement offences(db,
                     "SELECT o.offence_id, o.class, o.node_id, o.wallet, o.recorded_us, o.slashed, t.tx_id, "
                     "o.evidence FROM offences o LEFT JOIN transactions t ON t.seq = o.seq ORDER BY "
                     "o.recorded_us, o.offence_id");
  for (auto row = offences.query(); row.next() && out;) {
    lines.hex(row.bytes(0)).text(to_string(static_cast<offence_class>(row.integer(1)))).text(row.text(2));
    lines.text(row.text(3)).text(timestamp_text(row.integer(4))).text(to_decimal(row.amount(5)));
    lines.hex(row.bytes(6)).hex(row.bytes(7)).end();
  }
  return {};
}

/// Payloads are the very text that was hashed and signed: whoever has these lines can check the chain.
caf::error export_epochs(connection& db, export_format format, std::ostream& out) {
  line_writer lines(out, format, "epoch",
                    {"epoch_id", "start", "epoch_hash", "payload", "public_key", "signature"});
  statement epochs(
      db,
      "SELECT epoch_id, start_us, epoch_hash, payload, public_key, signature FROM epochs ORDER BY epoch_id");
  for (auto row = epochs.query(); row.next() && out;) {
    lines.number(row.integer(0)).text(timestamp_text(row.integer(1))).hex(row.bytes(2));
    lines.text(text_of(row.bytes(3))).hex(row.bytes(4)).hex(row.bytes(5)).end();
  }
  return {};
}

caf::error export_proofs(connection& db, export_format format, std::ostream& out) {
  line_writer lines(out, format, "proof",
                    {"proof_id", "type", "timestamp", "accepted", "reason", "reward", "payload", "public_key",
                     "signature", "delegation", "refuted"});
  statement proofs(
      db, "SELECT proof_id, type, timestamp_us, accepted, reason, reward, payload, public_key, "
          "signature, delegation, refuted FROM proofs WHERE own = 1 ORDER BY timestamp_us, proof_id");
  for (auto row = proofs.query(); row.next() && out;) {
    lines.hex(row.bytes(0)).text(to_string(static_cast<proof_type>(row.integer(1))));
    lines.text(timestamp_text(row.integer(2))).flag(row.integer(3) != 0).text(row.text(4));
    lines.text(to_decimal(row.amount(5))).text(text_of(row.bytes(6))).hex(row.bytes(7)).hex(row.bytes(8));
    lines.hex(row.bytes(9)).text(row.text(10)).end();
  }
  return {};
}

} // namespace

caf::error export_book(const std::string& path, export_format format, export_records records,
                       std::ostream& out) {
  connection db;
  if (auto failed = db.open(path, connection::mode::read_only))
    return failed;
  if (!db.execute("BEGIN"))
    return db.fault();
  if (auto failed = check_schema(db))
    return failed;
  using exporter = caf::error (*)(connection&, export_format, std::ostream&);
  for (const auto& [kind, write] :
       {std::pair<export_records, exporter>{export_records::transactions, export_transactions},
        {export_records::shares, export_shares},
        {export_records::receipts, export_receipts},
        {export_records::offences, export_offences},
        {export_records::proofs, export_proofs},
        {export_records::epochs, export_epochs}}) {
    if (records != kind && records != export_records::all)
      continue;
    if (auto failed = write(db, format, out))
      return failed;
    if (db.faulty())
      return db.fault();
  }
  return {};
}

} // namespace neuroshard
