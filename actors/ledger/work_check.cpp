#include "actors/ledger/work_check.hpp"

#include "actors/ledger/epoch_content.hpp"
#include "actors/ledger/ledger_store.hpp"
#include "actors/ledger/merkle.hpp"
#include "actors/ledger/utc_date.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <unordered_map>

namespace neuroshard {

namespace {

using sqlite::connection;
using sqlite::cursor;
using sqlite::statement;

std::string_view text_of(sqlite::blob bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <size_t N>
bool take_bytes(sqlite::blob bytes, std::array<uint8_t, N>& out) {
  if (bytes.size() != N)
    return false;
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return true;
}

/// `begin-end` of a reward's `steps` reference.
std::optional<step_range> read_steps(std::string_view text) {
  step_range made;
  const char* const end = text.data() + text.size();
  const auto [dash, first] = std::from_chars(text.data(), end, made.begin);
  if (first != std::errc() || dash == end || *dash != '-')
    return std::nullopt;
  const auto [last, second] = std::from_chars(dash + 1, end, made.end);
  return second == std::errc() && last == end ? std::optional(made) : std::nullopt;
}

struct proof_sums {
  int64_t submitted = 0;
  int64_t verified = 0;
  neuro_amount reward;
  friend bool operator==(const proof_sums&, const proof_sums&) = default;
};

class work_checker {
public:
  work_checker(connection& db, const book_beginning& beginning,
               const std::vector<std::pair<int64_t, economics_params>>& params)
      : db_(db), beginning_(beginning), params_(params) {}

  work_findings found;

  void check_epochs() {
    const auto known = link();
    epoch_content_reader minutes(db_);
    epoch_link after = known;
    epoch_content content;
    epoch_evidence evidence;
    evidence.chain_id = beginning_.chain_id;
    evidence.node_key = beginning_.node_key;
    statement row_hash(db_, "SELECT hash FROM transactions WHERE seq = ?");
    evidence.row_hash = [&](uint64_t seq) -> std::optional<kernels::digest> {
      if (seq == 0)
        return beginning_.chain_id;
      auto row = row_hash.query(seq);
      return row.next() ? std::optional(row.digest(0)) : std::nullopt;
    };
    evidence.proofs_root = [&](uint64_t) { return content.proofs_root; };
    evidence.tx_root = [&](uint64_t first, uint64_t last) {
      return first == after.last_seq + 1 && last == content.last_seq ? content.tx_root : kernels::digest{};
    };
    epoch_chain_check chain(evidence);
    uint64_t proofs = 0, receipts = 0;
    statement read(db_, "SELECT epoch_id, previous_hash, epoch_hash, start_us, end_us, last_seq, payload, "
                        "public_key, signature FROM epochs ORDER BY epoch_id");
    for (auto row = read.query(); row.next() && going(); ++found.epochs) {
      const std::string name = "epoch " + std::to_string(row.integer(0));
      const std::string_view payload = text_of(row.bytes(6));
      const auto epoch = read_epoch(payload);
      signature sig{};
      public_key key{};
      if (!epoch || !take_bytes(row.bytes(8), sig) || !take_bytes(row.bytes(7), key) ||
          row.integer(0) != static_cast<int64_t>(epoch->epoch_id)) {
        add(name + " is malformed");
        return;
      }
      content = minutes.read(epoch->epoch_id, after);
      if (auto wrong = chain.next(payload, row.digest(2), sig); !wrong.empty()) {
        add(std::move(wrong));
        return; // What follows is linked to this one.
      }
      if (row.digest(1) != epoch->prev_epoch_hash || row.integer(3) != epoch->start_us ||
          row.integer(4) != epoch->end_us || row.integer(5) != static_cast<int64_t>(epoch->last_seq) ||
          key != beginning_.node_key)
        add(name + " has a row that is not its record's");
      if (content.transactions > 0 && content.first_us < epoch->start_us)
        add("there are transactions before " + name + " that no epoch holds");
      epoch_record again =
          epoch_of(epoch->epoch_id, content, after, beginning_.chain_id, in_force(epoch->start_us));
      again.layer_map_hash = epoch->layer_map_hash; // What the network was is not in the rows.
      if (canonical_payload(again) != payload)
        add(name + " says something else than the rows of its minute: " + difference(again, payload));
      proofs += content.proofs;
      receipts += content.receipts;
      after = {row.digest(2), epoch->end_us, epoch->last_seq, epoch->last_row_hash};
    }
    count_is("SELECT count(*) FROM proofs WHERE own = 1 AND accepted = 1 AND timestamp_us >= 0 AND "
             "timestamp_us < ?",
             after.end_us, proofs, "there are proofs of closed minutes that no epoch holds");
    count_is("SELECT count(*) FROM receipts WHERE received_us < ? AND confirmed = 1", after.end_us, receipts,
             "there are receipts of closed minutes that no epoch holds");
  }

  void check_proofs(bool signatures) {
    statement read(db_,
                   "SELECT proof_id, node_id, wallet, own, type, first_layer, timestamp_us, nonce, epoch_id, "
                   "uptime_begin_us, accepted, reason, reward, payload, public_key, signature, delegation, "
                   "refuted FROM proofs ORDER BY proof_id");
    statement rewards(db_,
                      "SELECT amount, created_us, state FROM rewards WHERE proof_id = ? AND proof_id <> ''");
    statement receipts(db_, "SELECT proof_id, receipt_id FROM receipts WHERE proof_id IS NOT NULL ORDER BY "
                            "proof_id");
    auto receipt = receipts.query();
    bool more = receipt.next();
    std::map<int64_t, proof_sums> sums;
    for (auto row = read.query(); row.next() && going(); ++found.proofs) {
      const kernels::digest id = row.digest(0);
      const std::string hex = kernels::to_hex(id), name = "proof " + hex;
      const std::string_view payload = text_of(row.bytes(13));
      const auto proof = read_proof(payload);
      if (!proof || proof_id_of(payload) != id) {
        add(name + " does not hash to its id: it was changed");
        continue;
      }
      if (!columns_match(row, *proof))
        add(name + " has a row that is not its payload's");
      const bool accepted = row.integer(10) != 0;
      if (accepted != row.text(11).empty())
        add(name + " is neither accepted nor refused");
      const bool refuted = !row.text(17).empty();
      if (refuted && !accepted)
        add(name + " is refuted and was never accepted");
      if (signatures)
        check_signature(row, *proof, name);

      std::vector<kernels::digest> in_it;
      for (; more && receipt.digest(0) <= id; more = receipt.next())
        in_it.push_back(receipt.digest(1));
      if (accepted &&
          (in_it.size() != proof->receipt_count || merkle_root(std::move(in_it)) != proof->receipts_root))
        add(name + " has other receipts than the book");

      neuro_amount sum, matured, cap;
      const neuro_amount reward = row.amount(12);
      for (auto part = rewards.query(hex); part.next();) {
        sum = checked_add(sum, part.amount(0)).value_or(sum);
        cap = std::max(cap, in_force(part.integer(1)).max_per_proof);
        const auto state = static_cast<reward_state>(part.integer(2));
        if (state == reward_state::matured)
          matured = checked_add(matured, part.amount(0)).value_or(matured);
        if (refuted && state == reward_state::pending)
          add(name + " is refuted but has a reward that is pending");
      }
      if ((refuted ? matured : sum) != reward || sum > cap || (!accepted && sum.atto != 0))
        add(name + " says it earned " + to_decimal(reward) + " but its rewards are " + to_decimal(sum));
      auto& of_type = sums[row.integer(4)];
      ++of_type.submitted;
      of_type.verified += accepted && !refuted ? 1 : 0;
      of_type.reward = checked_add(of_type.reward, reward).value_or(of_type.reward);
    }
    statement counts(db_, "SELECT type, submitted, verified, reward FROM proof_counts");
    for (auto row = counts.query(); row.next() && going();) {
      const proof_sums stored{row.integer(1), row.integer(2), row.amount(3)};
      if (sums[row.integer(0)] != stored)
        add("the counts of proofs are not those of the proofs");
      sums.erase(row.integer(0));
    }
    if (going() && !sums.empty())
      add("the counts of proofs are not all there");
  }

  /// Rewards against their transactions and the sums of their days.
  void check_rewards() {
    std::map<std::pair<int64_t, int64_t>, reward_day_row> days;
    statement read(db_,
                   "SELECT id, seq, type, amount, created_us, tx_id, proof_id, steps_rewarded FROM rewards");
    statement made(db_, "SELECT kind, amount, tx_id, timestamp_us FROM transactions WHERE seq = ?");
    for (auto row = read.query(); row.next() && going();) {
      const std::string name = "reward " + std::to_string(row.integer(0));
      if (row.integer(7) != 0)
        steps_[row.integer(0)] = static_cast<uint64_t>(row.integer(7));
      const neuro_amount amount = row.amount(3);
      if (row.is_null(1)) {
        if (amount.atto != 0)
          add(name + " has no transaction");
        continue;
      }
      ++found.rewards;
      auto transaction = made.query(row.integer(1));
      if (!transaction.next() || transaction.integer(0) != static_cast<int64_t>(transaction_kind::reward) ||
          transaction.amount(1) != amount || kernels::to_hex(transaction.digest(2)) != row.text(5) ||
          transaction.integer(3) != row.integer(4))
        add(name + " is not what its transaction says");
      auto& day = days[{day_of(row.integer(4)), row.integer(2)}];
      day.amount = checked_add(day.amount, amount).value_or(day.amount);
      ++day.proofs;
    }
    statement sums(db_, "SELECT day, type, amount, proofs FROM reward_days");
    for (auto row = sums.query(); row.next();) {
      if (row.integer(1) == static_cast<int64_t>(reward_type::inference))
        continue; // Fees: not minted, counted when they are settled.
      const auto at = days.find({row.integer(0), row.integer(1)});
      const reward_day_row sum = at == days.end() ? reward_day_row{} : at->second;
      if (row.amount(2) != sum.amount || static_cast<uint64_t>(row.integer(3)) != sum.proofs)
        add("the rewards of " + date_text(static_cast<int32_t>(row.integer(0))) + " do not add up");
      if (at != days.end())
        days.erase(at);
    }
    for (const auto& [key, sum] : days)
      add("the rewards of " + date_text(static_cast<int32_t>(key.first)) + " are not in its sum");
  }

  /// A voided reward was burned by a transaction of its own, because its proof is refuted, or taken whole by
  /// a slash.
  void check_voids() {
    statement read(db_, "SELECT r.id, r.tx_id, r.proof_id, r.ended_seq IS NULL, t.kind, t.refs, t.amount, "
                        "r.amount, r.slashed FROM rewards r LEFT JOIN transactions t ON t.seq = r.ended_seq "
                        "WHERE r.state = 2");
    statement refuted(db_, "SELECT 1 FROM proofs WHERE proof_id = ? AND refuted <> ''");
    for (auto row = read.query(); row.next() && going();) {
      const std::string name = "reward " + std::to_string(row.integer(0));
      const auto kind = static_cast<transaction_kind>(row.integer(4));
      if (row.integer(3) != 0 || (kind != transaction_kind::reward_void && kind != transaction_kind::slash)) {
        add(name + " is voided by no transaction");
        continue;
      }
      if (kind == transaction_kind::slash)
        continue;
      ++found.voids;
      kernels::digest id{};
      const auto left = checked_sub(row.amount(7), row.amount(8));
      const std::string refs = "reward:" + std::string(row.text(1)) + ",proof:" + std::string(row.text(2));
      if (row.text(5) != refs || left != row.amount(6))
        add(name + " is not what the transaction that voided it says");
      else if (!from_hex(row.text(2), id.data(), id.size()) || !refuted.query(id).next())
        add(name + " is voided but its proof is not refuted");
    }
  }

  /// Steps are paid once: ranges of one key do not overlap and are those of their reward.
  void check_ranges() {
    statement read(db_, "SELECT r.node_id, r.architecture_id, r.model_hash, r.step_begin, r.step_end, "
                        "r.reward_id, w.node_id, w.architecture_id, w.model_hash, w.step_begin, w.step_end, "
                        "t.refs FROM reward_ranges r LEFT JOIN rewards w ON w.id = r.reward_id LEFT JOIN "
                        "transactions t ON t.seq = w.seq "
                        "ORDER BY r.node_id, r.architecture_id, r.model_hash, r.step_begin");
    std::string node, architecture;
    kernels::digest model{};
    int64_t end = 0;
    for (auto row = read.query(); row.next() && going();) {
      const std::string name = "the steps of reward " + std::to_string(row.integer(5));
      const int64_t begin = row.integer(3);
      const bool same = node == row.text(0) && architecture == row.text(1) && model == row.digest(2);
      if (begin >= row.integer(4) || (same && begin < end))
        add(name + " overlap steps that were rewarded before");
      node = row.text(0);
      architecture = row.text(1);
      model = row.digest(2);
      end = row.integer(4);
      if (row.text(6) != node || row.text(7) != architecture || !covered(row))
        add(name + " are not those it was made for");
      auto& left = steps_[row.integer(5)];
      left -= static_cast<uint64_t>(end - begin);
      if (left == 0)
        steps_.erase(row.integer(5));
    }
    if (going() && !steps_.empty())
      add("the steps of reward " + std::to_string(steps_.begin()->first) + " are not all there");
  }

  void check_commitments() {
    statement read(db_, "SELECT c.commitment, c.preimage, c.proof_id, p.payload FROM commitments c LEFT JOIN "
                        "proofs p ON p.proof_id = c.proof_id");
    for (auto row = read.query(); row.next() && going(); ++found.commitments) {
      const kernels::digest id = row.digest(0);
      const std::string name = "commitment " + kernels::to_hex(id);
      if (kernels::sha256::of(text_of(row.bytes(1))) != id)
        add("the preimage of " + name + " does not hash to it: it was changed");
      if (row.is_null(2))
        continue;
      const auto proof = read_proof(text_of(row.bytes(3)));
      if (!proof || proof->gradient_commitment != id)
        add(name + " is not that of its proof");
    }
  }

private:
  bool going() const { return found.faults.size() < faults_max && !db_.faulty(); }
  void add(std::string fault) {
    if (going())
      found.faults.push_back(std::move(fault));
  }
  epoch_link link() const { return {beginning_.chain_id, 0, 0, beginning_.chain_id}; }

  const economics_params& in_force(int64_t at_us) const {
    const auto after = std::upper_bound(params_.begin(), params_.end(), at_us,
                                        [](int64_t at, const auto& row) { return at < row.first; });
    return after == params_.begin() ? params_.front().second : std::prev(after)->second;
  }

  void count_is(const char* sql, int64_t before_us, uint64_t expected, const char* fault) {
    statement read(db_, sql);
    auto row = read.query(before_us);
    if (row.next() && static_cast<uint64_t>(row.integer(0)) != expected)
      add(fault);
  }

  /// The first line of a payload that is not as it would be made.
  static std::string difference(const epoch_record& made, std::string_view payload) {
    const std::string expected = canonical_payload(made);
    size_t at = 0, line = 0;
    for (; at < std::min(expected.size(), payload.size()) && expected[at] == payload[at]; ++at)
      if (expected[at] == '\n')
        line = at + 1;
    const size_t equals = payload.find('=', line);
    return std::string(payload.substr(line, equals == std::string_view::npos ? 0 : equals - line));
  }

  static bool columns_match(const cursor& row, const work_proof& proof) {
    const bool layers = proof.layer_begin < proof.layer_end;
    return row.text(1) == proof.node_id && row.text(2) == proof.wallet && row.integer(3) == 1 &&
           row.integer(4) == static_cast<int64_t>(type_of(proof)) && row.is_null(5) != layers &&
           (!layers || row.integer(5) == static_cast<int64_t>(proof.layer_begin)) &&
           row.integer(6) == proof.timestamp_us && row.text(7) == proof.nonce &&
           row.integer(8) == static_cast<int64_t>(proof.epoch_id) &&
           row.integer(9) == proof.uptime_begin_us();
  }

  void check_signature(const cursor& row, const work_proof& proof, const std::string& name) {
    signed_blob blob;
    blob.payload = text_of(row.bytes(13));
    blob.delegation = text_of(row.bytes(16));
    ++found.signatures;
    if (!take_bytes(row.bytes(14), blob.key) || !take_bytes(row.bytes(15), blob.sig)) {
      add("the signature of " + name + " is not valid");
      return;
    }
    // A delegation has to have been in force when the proof was made.
    const auto signer = verify_blob(blob, proof_tag, proof.timestamp_us / 1'000);
    if (!signer || signer->node_id != proof.node_id || signer->address != beginning_.wallet)
      add("the signature of " + name + " is not valid");
  }

  /// Whether a rewarded range lies within what the reward's transaction names; where nothing was minted, in
  /// what its row says.
  static bool covered(const cursor& row) {
    const auto begin = static_cast<uint64_t>(row.integer(3)), end = static_cast<uint64_t>(row.integer(4));
    if (row.is_null(11))
      return begin >= static_cast<uint64_t>(row.integer(9)) && end <= static_cast<uint64_t>(row.integer(10));
    const auto refs = parse_references(row.text(11));
    const std::string model = kernels::to_hex(row.bytes(2));
    bool of_model = false;
    for (const auto& [key, value] : refs.value_or(reference_list{})) {
      if (key == "model")
        of_model = value == model;
      const auto steps = of_model && key == "steps" ? read_steps(value) : std::nullopt;
      if (steps && begin >= steps->begin && end <= steps->end)
        return true;
    }
    return false;
  }

  connection& db_;
  const book_beginning& beginning_;
  const std::vector<std::pair<int64_t, economics_params>>& params_;
  std::unordered_map<int64_t, uint64_t> steps_; ///< by reward; what its ranges have not accounted for
};

} // namespace

work_findings check_work(connection& db, const book_beginning& beginning,
                         const std::vector<std::pair<int64_t, economics_params>>& params, bool signatures) {
  work_checker check(db, beginning, params);
  check.check_epochs();
  check.check_proofs(signatures);
  check.check_rewards();
  check.check_voids();
  check.check_ranges();
  check.check_commitments();
  return std::move(check.found);
}

} // namespace neuroshard
