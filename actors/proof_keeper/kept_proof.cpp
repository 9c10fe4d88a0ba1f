#include "actors/proof_keeper/kept_proof.hpp"

#include "actors/ledger/schema.hpp"
#include "actors/ledger/sqlite.hpp"

namespace neuroshard {

namespace {

std::string text_of(sqlite::blob bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
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
    sqlite::statement read(db, "SELECT payload, accepted, reason FROM proofs WHERE proof_id = ?");
    auto row = read.query(id);
    if (!row.next())
      return db.faulty() ? db.fault() : refuse(errc::not_found, "No proof of this id is in the book.");
    const auto payload = text_of(row.bytes(0));
    auto proof = read_proof(payload);
    if (!proof || proof_id_of(payload) != id)
      return refuse(errc::data_loss, "The book's record of this proof is damaged.");
    found.proof = std::move(*proof);
    found.accepted = row.integer(1) != 0;
    found.reason = row.text(2);
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
