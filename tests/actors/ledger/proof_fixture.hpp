#pragma once

#include "actors/ledger/sqlite.hpp"
#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/actors/ledger/receipt_fixture.hpp"

#include <fmt/format.h>

namespace neuroshard::testing {

/// A book whose node proves its work.
struct proof_fixture : book_fixture {
  digest model = digest_of("model");

  proof_fixture() {
    open();
    done(note_checkpoint{architecture, model, 0});
  }

  /// A minute of 4 steps of 2,048 label tokens on 6 layers, beginning at `step`.
  work_proof trained(uint64_t step) {
    auto proof = good_proof(*options.identity, book->chain_id(), architecture, clock->us);
    proof.nonce = fmt::format("{:032x}", ++proofs_made);
    proof.step_begin = step;
    proof.step_end = step + 4;
    proof.model_hash_start = proof.model_hash_end = model;
    return proof;
  }
  work_proof idle() {
    auto proof = trained(0);
    proof.label_tokens = proof.steps = proof.step_begin = proof.step_end = proof.batch_size = proof.seq_len =
        0;
    proof.model_hash_start = proof.model_hash_end = proof.gradient_commitment = proof.data_hash = {};
    proof.gradient_norm_e6 = proof.loss_e6 = {};
    return proof;
  }
  /// The minute after this one; what is due is done.
  void next_minute(int64_t seconds = 60) {
    clock->advance_s(seconds);
    REQUIRE(book->run_due());
    REQUIRE(!book->commit());
  }
  /// Changes the file behind the book's back.
  void edit(const std::string& sql) const {
    sqlite::connection db;
    REQUIRE(!db.open(options.path, sqlite::connection::mode::read_write));
    REQUIRE(db.execute(sql.c_str()));
  }
  /// A receipt for work done here and counter-signed by `other` (or the reverse), as recording one leaves it.
  digest receipt(const std::string& work_id, const node_identity& other, bool confirmed = true,
                 bool own = true) const {
    const node_identity& worker = own ? *options.identity : other;
    const node_identity& driver = own ? other : *options.identity;
    const auto what = work_for(worker, driver, work_id, 1, 16);
    const std::string worker_blob = signed_by(worker, what);
    const std::string driver_blob = confirmed ? countersigned_by(driver, worker_blob) : std::string();
    const auto hex = [](std::string_view bytes) {
      return kernels::to_hex({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
    };
    const digest id = receipt_id_of(encode_receipt(what));
    edit(fmt::format(
        "INSERT INTO receipts (receipt_id, worker_node_id, driver_node_id, kind, work_id, own, confirmed, "
        "received_us, worker_blob, driver_blob, worker_wallet, driver_wallet, nonce) VALUES (x'{}', '{}', "
        "'{}', {}, '{}', {}, {}, {}, x'{}', x'{}', '{}', '{}', x'{}')",
        kernels::to_hex(id), what.worker_node_id, what.driver_node_id, static_cast<int>(what.kind), work_id,
        own ? 1 : 0, confirmed ? 1 : 0, clock->us.load(), hex(worker_blob), hex(driver_blob),
        worker.address(), confirmed ? driver.address() : std::string(), kernels::to_hex(what.nonce)));
    return id;
  }
  const node_identity stranger = identity_of("other-wallet-word");
  const node_identity twin = identity_of("correct-horse", 1); ///< another node of this wallet
};

} // namespace neuroshard::testing
