#include "actors/proof_keeper/kept_proof.hpp"

#include "actors/identity/node_identity.hpp"
#include "actors/ledger/schema.hpp"
#include "actors/ledger/sqlite.hpp"

#include <algorithm>
#include <array>

namespace neuroshard {

namespace {

std::string text_of(sqlite::blob bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <size_t N>
bool take_bytes(sqlite::blob bytes, std::array<uint8_t, N>& out) {
  if (bytes.size() != N)
    return false;
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return true;
}

} // namespace

caf::expected<kept_proof> find_kept_proof(const std::string& ledger_path, const kernels::digest& id) {
  sqlite::connection db;
  if (auto failed = db.open(ledger_path, sqlite::connection::mode::read_only))
    return failed;
  if (auto failed = check_schema(db))
    return failed;
  kept_proof found;
  {
    sqlite::statement read(
        db, "SELECT payload, accepted, reason, refuted, public_key, signature, delegation FROM "
            "proofs WHERE proof_id = ?");
    auto row = read.query(id);
    if (!row.next())
      return db.faulty() ? db.fault() : refuse(errc::not_found, "No proof of this id is in the book.");
    signed_blob blob;
    blob.payload = text_of(row.bytes(0));
    blob.delegation = text_of(row.bytes(6));
    const auto& payload = blob.payload;
    auto proof = read_proof(payload);
    if (!proof || proof_id_of(payload) != id || !take_bytes(row.bytes(4), blob.key) ||
        !take_bytes(row.bytes(5), blob.sig))
      return refuse(errc::data_loss, "The book's record of this proof is damaged.");
    found.proof = std::move(*proof);
    found.accepted = row.integer(1) != 0;
    found.reason = row.text(2);
    found.refuted = row.text(3);
    found.signed_bytes = encode_signed_blob(blob);
  }
  if (found.proof.gradient_commitment) {
    sqlite::statement read(db, "SELECT preimage FROM commitments WHERE commitment = ?");
    auto row = read.query(*found.proof.gradient_commitment);
    if (row.next())
      found.preimage = text_of(row.bytes(0));
  }
  if (db.faulty())
    return db.fault();
  return found;
}

} // namespace neuroshard
