#include "actors/ledger/receipt.hpp"

#include "actors/identity/wire.hpp"

#include <algorithm>
#include <limits>

namespace neuroshard {

namespace {

constexpr uint64_t receipt_layers_max = 65'536;
constexpr uint64_t receipt_count_max = uint64_t{1} << 48;
constexpr size_t work_id_bytes_max = 128;
constexpr int64_t year_9999_ms = 253'402'300'799'999;

caf::error malformed(const char* field, const char* message) {
  problem what;
  what.message = message;
  what.field = field;
  what.reason = "malformed";
  return refuse(errc::invalid_request, std::move(what));
}

caf::error not_its_word(errc code, const char* field, const char* reason, const char* message) {
  problem what;
  what.message = message;
  what.field = field;
  what.reason = reason;
  return refuse(code, std::move(what));
}

/// Nothing, or what is out of its bounds.
caf::error check_bounds(const receipt& of) {
  const auto printable = [](char c) { return c > 0x20 && c <= 0x7e; };
  if (!is_lower_hex(of.worker_node_id, 32))
    return malformed("worker_node_id", "A node id is 32 hex digits.");
  if (!is_lower_hex(of.driver_node_id, 32) || of.driver_node_id == of.worker_node_id)
    return malformed("driver_node_id", "The driver is a node id of 32 hex digits, and not the worker's.");
  if (of.kind != receipt_kind::inference && of.kind != receipt_kind::training)
    return malformed("kind", "This kind of receipt is not known.");
  if (of.work_id.empty() || of.work_id.size() > work_id_bytes_max ||
      !std::all_of(of.work_id.begin(), of.work_id.end(), printable))
    return malformed("work_id", "A work id has 1 to 128 printable characters without blanks.");
  if (of.layer_begin > of.layer_end || of.layer_end > receipt_layers_max)
    return malformed("layer_end", "The range of layers is out of range.");
  if (of.tokens > receipt_count_max)
    return malformed("tokens", "The number of tokens is out of range.");
  if (of.steps > receipt_count_max)
    return malformed("steps", "The number of steps is out of range.");
  if (of.model_version > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return malformed("model_version", "The model version is out of range.");
  if (of.started_unix_ms < 0 || of.started_unix_ms > of.ended_unix_ms || of.ended_unix_ms > year_9999_ms)
    return malformed("ended_unix_ms", "The times are not in order or out of range.");
  return {};
}

/// The blob inside, its signature checked.
caf::expected<std::pair<signed_blob, blob_signer>> open_blob(std::string_view bytes, std::string_view tag,
                                                             const char* field, int64_t now_unix_ms) {
  if (bytes.size() > receipt_blob_bytes_max)
    return malformed(field, "A receipt's signed bytes are too long.");
  auto blob = decode_signed_blob(bytes);
  if (!blob)
    return malformed(field, "The signed object is malformed.");
  auto signer = verify_blob(*blob, tag, now_unix_ms);
  if (!signer)
    return signer.error();
  return std::pair(std::move(*blob), std::move(*signer));
}

} // namespace

const char* to_string(receipt_kind kind) noexcept {
  switch (kind) {
  case receipt_kind::inference:
    return "inference";
  case receipt_kind::training:
    return "training";
  }
  return "";
}

uint64_t receipt::work() const noexcept {
  uint64_t product = 0;
  return __builtin_mul_overflow(uint64_t{layer_end} - layer_begin, tokens, &product)
             ? std::numeric_limits<uint64_t>::max()
             : product;
}

std::string encode_receipt(const receipt& from) {
  std::string out;
  wire::put_bytes(out, 1, from.worker_node_id);
  wire::put_bytes(out, 2, from.driver_node_id);
  wire::put_unsigned(out, 3, static_cast<uint64_t>(from.kind));
  wire::put_bytes(out, 4, from.work_id);
  wire::put_unsigned(out, 5, from.layer_begin);
  wire::put_unsigned(out, 6, from.layer_end);
  wire::put_unsigned(out, 7, from.embedding);
  wire::put_unsigned(out, 8, from.head);
  wire::put_unsigned(out, 9, from.tokens);
  wire::put_unsigned(out, 10, from.steps);
  wire::put_unsigned(out, 11, from.model_version);
  wire::put_int(out, 12, from.started_unix_ms);
  wire::put_int(out, 13, from.ended_unix_ms);
  wire::put_bytes(out, 14, wire::view_of(from.nonce));
  return out;
}

caf::expected<receipt> decode_receipt(std::string_view bytes) {
  receipt made;
  uint8_t kind = 0;
  bool has_nonce = false;
  const bool ok =
      bytes.size() <= receipt_bytes_max && wire::read_fields(bytes, [&](const wire::field& field) {
        switch (field.number) {
        case 1:
          return wire::take_text(field, made.worker_node_id);
        case 2:
          return wire::take_text(field, made.driver_node_id);
        case 3:
          return wire::take_number(field, kind);
        case 4:
          return wire::take_text(field, made.work_id);
        case 5:
          return wire::take_number(field, made.layer_begin);
        case 6:
          return wire::take_number(field, made.layer_end);
        case 7:
          return wire::take_flag(field, made.embedding);
        case 8:
          return wire::take_flag(field, made.head);
        case 9:
          return wire::take_number(field, made.tokens);
        case 10:
          return wire::take_number(field, made.steps);
        case 11:
          return wire::take_number(field, made.model_version);
        case 12:
          return wire::take_number(field, made.started_unix_ms);
        case 13:
          return wire::take_number(field, made.ended_unix_ms);
        case 14:
          return has_nonce = wire::take_exactly(field, made.nonce);
        default:
          return true;
        }
      });
  if (!ok || !has_nonce)
    return malformed("worker_blob", "The receipt is malformed.");
  made.kind = static_cast<receipt_kind>(kind);
  if (auto wrong = check_bounds(made))
    return wrong;
  return made;
}

caf::expected<std::string> make_receipt(const node_identity& by, const receipt& of) {
  if (auto wrong = check_bounds(of))
    return wrong;
  if (of.worker_node_id != by.node_id())
    return not_its_word(errc::forbidden, "worker_node_id", "wrong_signer",
                        "A node makes receipts for its own work.");
  return encode_signed_blob(by.sign_as_node(receipt_tag, encode_receipt(of)));
}

caf::expected<std::string> countersign(const node_identity& by, std::string_view worker_blob) {
  if (worker_blob.size() > receipt_blob_bytes_max)
    return malformed("worker_blob", "A receipt's signed bytes are too long.");
  const auto blob = decode_signed_blob(worker_blob);
  if (!blob)
    return blob.error();
  const auto of = decode_receipt(blob->payload);
  if (!of)
    return of.error();
  if (of->driver_node_id != by.node_id())
    return not_its_word(errc::forbidden, "driver_node_id", "wrong_signer",
                        "A node counter-signs receipts for what it drove.");
  return encode_signed_blob(by.sign_as_node(countersign_tag, std::string(worker_blob)));
}

caf::expected<signed_receipt> read_receipt(std::string_view worker_blob, std::string_view driver_blob,
                                           int64_t now_unix_ms) {
  auto worker = open_blob(worker_blob, receipt_tag, "worker_blob", now_unix_ms);
  if (!worker)
    return worker.error();
  auto what = decode_receipt(worker->first.payload);
  if (!what)
    return what.error();
  if (worker->second.node_id != what->worker_node_id)
    return not_its_word(errc::unauthorized, "worker_blob", "wrong_signer",
                        "The receipt is not signed by the node that it names as the worker.");
  signed_receipt made{std::move(*what), receipt_id_of(worker->first.payload), std::move(worker->second), {}};
  if (driver_blob.empty())
    return made;
  auto driver = open_blob(driver_blob, countersign_tag, "driver_blob", now_unix_ms);
  if (!driver)
    return driver.error();
  if (driver->first.payload != worker_blob)
    return not_its_word(errc::unauthorized, "driver_blob", "other_receipt",
                        "The counter-signature is of another receipt.");
  if (driver->second.node_id != made.what.driver_node_id)
    return not_its_word(errc::unauthorized, "driver_blob", "wrong_signer",
                        "The receipt is not counter-signed by the node that it names as the driver.");
  made.driver = std::move(driver->second);
  return made;
}

caf::expected<countersigned_receipt> countersign_within(const node_identity& driver,
                                                        const receipt_terms& terms,
                                                        const signed_blob& claimed, int64_t now_unix_ms) {
  countersigned_receipt made;
  made.worker_blob = encode_signed_blob(claimed);
  auto read = read_receipt(made.worker_blob, {}, now_unix_ms);
  if (!read)
    return read.error();
  const auto& claim = read->what;
  if (claim.worker_node_id != terms.worker_node_id || claim.driver_node_id != driver.node_id() ||
      claim.kind != terms.kind || claim.work_id != terms.work_id || claim.layer_begin != terms.layer_begin ||
      claim.layer_end != terms.layer_end || claim.model_version != terms.model_version)
    return not_its_word(errc::forbidden, "work_id", "other_work",
                        "The receipt is for other work than this session's.");
  if (claim.tokens > terms.tokens || claim.steps > terms.steps || (claim.embedding && !terms.embedding) ||
      (claim.head && !terms.head))
    return not_its_word(errc::forbidden, "tokens", "above_count",
                        "The receipt claims more than was counted here.");
  auto both = countersign(driver, made.worker_blob);
  if (!both)
    return both.error();
  auto blob = decode_signed_blob(*both);
  if (!blob)
    return blob.error();
  made.driver_blob = std::move(*both);
  made.driver = std::move(*blob);
  made.id = read->id;
  made.wallet = std::move(read->worker.address);
  made.what = std::move(read->what);
  return made;
}

} // namespace neuroshard
