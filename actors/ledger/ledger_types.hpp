#pragma once

#include "actors/common/money.hpp"
#include "actors/identity/node_identity.hpp"
#include "kernels/core/sha256.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// What the ledger is asked and what it answers: plain values, no CAF. Times are unix microseconds, days are
/// UTC days since 1970-01-01, addresses are `0x` and 40 lower-case hex digits.
namespace neuroshard {

using kernels::digest;

/// Names one HTTP request for duplicate suppression (spec/http-api.md section 5). Without a key, requests are
/// identical when token, path and body are.
struct request_mark {
  digest token{}; ///< SHA-256 of the canonical token
  std::string path;
  digest body{};   ///< SHA-256 of the body bytes
  std::string key; ///< Idempotency-Key, 1-128 printable ASCII characters, or empty
};

/// How an answer came about. `row` is to be named in `mark_delivered` once the response has reached its
/// client; 0 when the request had no mark.
struct answer_origin {
  bool replayed = false; ///< an earlier request's answer; nothing was executed
  int64_t row = 0;
};

// -- sending
// ---------------------------------------------------------------------------------------------------------------------------

/// Sends from the node's wallet; signed with its key. Refusals: invalid_request (field `to`, `amount`,
/// `memo`, `Idempotency-Key`), insufficient_balance, storage.
struct send_neuro {
  std::string to; ///< either case
  neuro_amount amount;
  std::string memo; ///< at most 256 bytes
  std::optional<request_mark> mark;
};
struct send_result {
  answer_origin origin;
  std::string transaction_id;
  std::string from;
  std::string to;
  neuro_amount amount;
  neuro_amount fee;
  std::string memo;
  int64_t timestamp_us = 0;
};

// -- staking
// ---------------------------------------------------------------------------------------------------------------------------

/// POST /wallet/stake. Refusals: invalid_request (field `amount` or `duration_days` with `min`, `max`),
/// insufficient_balance.
struct stake_neuro {
  neuro_amount amount;
  uint32_t duration_days = 0; ///< 0: the default
  std::optional<request_mark> mark;
};
/// POST /wallet/stake/add: keeps the lock. Without a stake: invalid_request.
struct add_stake {
  neuro_amount amount;
  std::optional<request_mark> mark;
};
/// POST /wallet/stake/extend. The remaining lock stays within the maximum.
struct extend_stake {
  uint32_t additional_days = 0;
  std::optional<request_mark> mark;
};
/// A lock as it stands.
struct stake_state {
  neuro_amount amount;
  int32_t start_day = 0;
  int32_t unlock_day = 0;
  uint64_t multiplier_ppm = 1'000'000;

  uint32_t duration_days() const { return static_cast<uint32_t>(unlock_day - start_day); }
};
struct stake_result {
  answer_origin origin;
  std::string transaction_id;
  stake_state stake;
  neuro_amount available; ///< after it
};
/// POST /wallet/unstake. Refusals: invalid_request with reason `stake_locked` (`unlock_date`),
/// `exceeds_stake`, `below_minimum`.
struct unstake_neuro {
  std::optional<neuro_amount> amount; ///< nothing: all
  std::optional<request_mark> mark;
};
struct unstake_result {
  answer_origin origin;
  std::string transaction_id;
  neuro_amount amount;
  int32_t available_day = 0;
  uint32_t cooldown_days = 0;
  neuro_amount remaining_stake;
};

// -- inference
// -------------------------------------------------------------------------------------------------------------------------

/// Locks price x (prompt_tokens + max_tokens) of the node's wallet. Asked again with the same id and tokens:
/// the first answer. Not to be sent for self-service (spec/economics.md section 7).
struct reserve_inference {
  std::string request_id; ///< the server-made `inf_` id
  uint64_t prompt_tokens = 0;
  uint64_t max_tokens = 0;
};
struct reserve_result {
  neuro_amount reserved;
  neuro_amount price_per_token;
  int64_t expires_us = 0;
};
/// One node that ran layers. Its part of the workers' share is credited_work / (sum of counted_work).
struct worker_share {
  std::string address;        ///< its wallet
  uint64_t counted_work = 0;  ///< layers x tokens by the driver's own count
  uint64_t credited_work = 0; ///< min(its receipt, counted_work); 0 without a receipt: burned
  std::string receipt_id;     ///< 64 hex, empty for the node itself
};
/// Pays for what was produced and frees the rest. Addresses left empty are unpaid, and so are those of other
/// wallets without a receipt: their part is burned. A receipt that is named must be in the book, of this
/// request and this wallet, counter-signed by this node, for at least the credited work, or for the role.
/// Refusals: not_found, failed_precondition (already refunded), invalid_request (more tokens than reserved, a
/// receipt that does not do). Asked twice: the first answer.
struct settle_inference {
  std::string request_id;
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  std::string driver;
  std::string driver_receipt_id;
  std::string validator;
  std::string validator_receipt_id;
  std::vector<worker_share> workers;
  std::optional<request_mark> mark; ///< with `response`: kept in the same SQLite transaction
  std::string response;
};
struct settle_result {
  answer_origin origin;
  std::string transaction_id;
  neuro_amount cost;
  neuro_amount burned;
  neuro_amount earned; ///< what of it came back to the node's own wallet
};
/// Frees the whole reservation. Asked twice: the first answer. After a settlement: failed_precondition.
struct refund_inference {
  std::string request_id;
};
struct refund_result {
  neuro_amount refunded;
};

// -- rewards
// ---------------------------------------------------------------------------------------------------------------------------

/// A checkpoint is on disk (written, synced, renamed), or was found there at start. Training rewards may
/// begin only at noted hashes.
struct note_checkpoint {
  std::string architecture_id; ///< 16 hex
  digest model_hash{};
  uint64_t step = 0; ///< total inner steps it holds
};
struct checkpoint_noted {
  bool known_before = false;
};

// -- proofs of neural work, epochs, receipts, offences
// ---------------------------------------------------------------------------------------------------------------------------

/// Steps since one outer step; their reward is known by its model hash (spec/economics.md section 9).
struct step_segment {
  digest model_hash{};
  uint64_t step_begin = 0; ///< half open
  uint64_t step_end = 0;
};

/// Records a proof of this node that the proof keeper has judged, and mints what it earned: for its uptime
/// (stake > 0, or receipts of another wallet) and for its training, each a reward transaction of its own,
/// written together. Asked again with the same proof: the first answer, nothing is done. Refusals: forbidden
/// (another node's, another book's), invalid_request, failed_precondition (reasons `epoch_closed`,
/// `unknown_checkpoint`).
struct record_proof {
  signed_blob proof;                  ///< of a work_proof, signed by this node
  std::string refused;                ///< empty: accepted. Otherwise why not; kept, earns nothing
  std::vector<step_segment> segments; ///< together the proof's steps, ascending; none without training
  uint64_t scarcity_ppm = 1'000'000;  ///< from the layer map of the previous epoch, 1,000,000 - 1,500,000
  std::vector<digest> receipts; ///< confirmed ones, of no other proof; their Merkle root is in the proof
};
struct proof_result {
  bool replayed = false;
  std::string proof_id;        ///< 64 hex
  neuro_amount reward;         ///< of all its parts; pending until it matures
  uint64_t steps_rewarded = 0; ///< of its steps
  bool capped = false;         ///< a cap of section 9 cut it
};

/// Keeps what a gradient commitment is the hash of, for 24 hours. Answers once it is on disk.
struct keep_commitment {
  std::string preimage; ///< at most 1 MiB
};
struct commitment_kept {
  digest commitment{};
};

/// A proof that was accepted is refuted after all (a failed spot check): it counts as rejected from now on,
/// what of its rewards is pending goes to `burn`, its steps stay paid for. What has matured is out of reach.
/// Done by the operator with `neuroshard ledger check-proof`, not while a node runs. Asked again: the first
/// answer. Refusals: not_found, failed_precondition (reason `refused`: it was never accepted).
struct void_reward {
  std::string proof_id;
  std::string reason; ///< what refutes it, one word, 1-64 of [a-z_]
};
struct void_result {
  bool known_before = false;
  neuro_amount burned;
  neuro_amount matured; ///< had been paid out before
};

/// Both sides' words for work done (receipt.hpp): `worker_blob` and `driver_blob` are the SignedBlobs' bytes,
/// the second empty while the driver has not counter-signed. Asked again, the better of both is kept.
/// Refusals: those of read_receipt; forbidden when this node is neither side; already_exists (reason
/// `conflicting_receipt`, detail `receipt_id` of the one that is kept) when the worker has signed another
/// receipt with the same driver, work id and nonce: both together are evidence of an offence.
struct record_receipt {
  std::string worker_blob;
  std::string driver_blob;
};
struct receipt_recorded {
  digest receipt_id{};
  bool confirmed = false;
  bool known_before = false;
};

/// Offences of section 6; numbers are stored.
enum class offence_class : uint8_t { refuted_proof = 1, conflict, failed_spot_check };
const char* to_string(offence_class what) noexcept;

/// Bytes signed by `node_id` (of `wallet`) that prove an offence. Kept once by the SHA-256 of the evidence;
/// the book's own wallet is slashed, within the cooldown of the class only recorded. Asked again: the first
/// answer.
struct record_offence {
  offence_class what{};
  std::string node_id;
  std::string wallet;
  std::string evidence; ///< at most 64 KiB
};
struct offence_result {
  bool known_before = false;
  std::string offence_id;     ///< 64 hex
  std::string transaction_id; ///< of the slash; empty when the offence was only recorded
  neuro_amount slashed;
};

// -- duplicate suppression
// ---------------------------------------------------------------------------------------------------------------

/// Looks up a stored answer that a request with this mark is to be given. Refuses invalid_request when the
/// key was used with another body.
struct find_response {
  request_mark mark;
};
struct found_response {
  bool found = false;
  int64_t row = 0;
  std::string response; ///< as given to keep_response or settle_inference
};
/// Keeps an answer that moved no money (a free inference).
struct keep_response {
  request_mark mark;
  std::string response; ///< at most 1 MiB
};
/// The response of this row reached its client; an identical request without a key is a new one from now on.
struct mark_delivered {
  int64_t row = 0;
};

// -- life
// ------------------------------------------------------------------------------------------------------------------------------

struct get_ledger_status {};
struct ledger_status {
  bool writable = false;
  std::string fault; ///< why not, one sentence; empty when all is well
  std::string chain_id;
  uint64_t last_seq = 0;
  uint64_t transactions_committed = 0; ///< since start
  uint64_t groups_committed = 0;       ///< fsyncs since start
  uint64_t open_reservations = 0;
};

} // namespace neuroshard
