#include "actors/ledger/epoch_record.hpp"

#include "actors/common/money.hpp"

#include <limits>

namespace neuroshard {

std::string canonical_payload(const epoch_record& of) {
  const auto bytes = [](const kernels::digest& value) { return std::span<const uint8_t>(value); };
  return canonical_writer(epoch_tag)
      .bytes("chain_id", bytes(of.chain_id))
      .number("epoch_id", of.epoch_id)
      .bytes("prev_epoch_hash", bytes(of.prev_epoch_hash))
      .number("start_us", static_cast<uint64_t>(of.start_us))
      .number("end_us", static_cast<uint64_t>(of.end_us))
      .bytes("params_hash", bytes(of.params_hash))
      .bytes("model_hash_start", of.model_hash_start)
      .bytes("model_hash_end", of.model_hash_end)
      .bytes("proofs_root", bytes(of.proofs_root))
      .number("proof_count", of.proof_count)
      .bytes("receipts_root", bytes(of.receipts_root))
      .text("total_reward", of.total_reward)
      .number("total_batches", of.total_batches)
      .number("average_loss_e6", of.average_loss_e6)
      .bytes("commitments_root", bytes(of.commitments_root))
      .bytes("layer_map_hash", of.layer_map_hash)
      .bytes("tx_root", bytes(of.tx_root))
      .number("last_seq", of.last_seq)
      .bytes("last_row_hash", bytes(of.last_row_hash))
      .payload();
}

std::optional<epoch_record> read_epoch(std::string_view payload) {
  if (payload.size() > proof_bytes_max)
    return std::nullopt;
  canonical_reader in(payload, epoch_tag);
  epoch_record made;
  made.chain_id = in.digest("chain_id");
  made.epoch_id = in.number("epoch_id");
  made.prev_epoch_hash = in.digest("prev_epoch_hash");
  const uint64_t start = in.number("start_us"), end = in.number("end_us");
  made.params_hash = in.digest("params_hash");
  made.model_hash_start = in.optional_digest("model_hash_start");
  made.model_hash_end = in.optional_digest("model_hash_end");
  made.proofs_root = in.digest("proofs_root");
  made.proof_count = in.number("proof_count");
  made.receipts_root = in.digest("receipts_root");
  made.total_reward = in.text("total_reward");
  made.total_batches = in.number("total_batches");
  made.average_loss_e6 = in.optional_number("average_loss_e6");
  made.commitments_root = in.digest("commitments_root");
  made.layer_map_hash = in.optional_digest("layer_map_hash");
  made.tx_root = in.digest("tx_root");
  made.last_seq = in.number("last_seq");
  made.last_row_hash = in.digest("last_row_hash");
  constexpr uint64_t time_max = std::numeric_limits<int64_t>::max();
  if (!in.done() || start > time_max || end > time_max || made.epoch_id > time_max / epoch_us ||
      !from_atto_text(made.total_reward))
    return std::nullopt;
  made.start_us = static_cast<int64_t>(start);
  made.end_us = static_cast<int64_t>(end);
  return made;
}

std::string epoch_chain_check::next(std::string_view payload, const kernels::digest& hash,
                                    const signature& sig) {
  const auto epoch = read_epoch(payload);
  if (!epoch)
    return "an epoch is malformed";
  const std::string name = "epoch " + std::to_string(epoch->epoch_id);
  if (epoch->chain_id != evidence_.chain_id)
    return name + " belongs to another book";
  if (epoch_hash_of(payload) != hash)
    return name + " does not hash to its hash: it was changed";
  if (!verify(evidence_.node_key, sig, epoch_tag, payload))
    return name + " is not signed by the book's node";
  if (epoch->prev_epoch_hash != (last_ ? last_hash_ : evidence_.chain_id))
    return name + " does not link to the epoch before it";
  if (last_ && (epoch->epoch_id <= last_->epoch_id || epoch->last_seq < last_->last_seq))
    return name + " does not come after the epoch before it";
  if (epoch->start_us != static_cast<int64_t>(epoch->epoch_id) * epoch_us ||
      epoch->end_us != epoch->start_us + epoch_us)
    return name + " has times that are not its own";
  if (evidence_.row_hash && evidence_.row_hash(epoch->last_seq) != epoch->last_row_hash)
    return name + " names another last row than the book has";
  if (evidence_.proofs_root && evidence_.proofs_root(epoch->epoch_id) != epoch->proofs_root)
    return name + " has other proofs than the book";
  if (evidence_.tx_root &&
      evidence_.tx_root(last_ ? last_->last_seq + 1 : 1, epoch->last_seq) != epoch->tx_root)
    return name + " has other transactions than the book";
  last_ = epoch;
  last_hash_ = hash;
  return {};
}

} // namespace neuroshard
