#include "actors/trainer/unproven_work.hpp"

#include "actors/common/log.hpp"
#include "actors/identity/keys.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

namespace {

constexpr size_t segments_max = 1'000; // the ledger takes a few more

/// Of a text that was checked when it came in.
kernels::digest known_digest(const std::string& hex) {
  return digest_from_hex(hex).value_or(kernels::digest{});
}

} // namespace

void unproven_work::begin(uint64_t inner_step, std::string outer_hash, std::vector<unclaimed_work> owed) {
  *this = {};
  outer_hash_ = std::move(outer_hash);
  for (auto& piece : owed) {
    const bool first = pieces_.empty();
    const bool begins = is_lower_hex(piece.commitment, 64) && is_lower_hex(piece.data_hash, 64);
    const bool goes_on = !first && piece.step_begin == pieces_.back().step_end && piece.commitment.empty();
    if ((begins || goes_on) && (first || piece.step_begin >= pieces_.back().step_end) &&
        piece.label_tokens > 0 && piece.step_begin < piece.step_end && piece.step_end <= inner_step &&
        is_lower_hex(piece.model_hash_start, 64))
      pieces_.push_back({std::move(piece), {}});
  }
}

bool unproven_work::wants_sample(int64_t now_us) const {
  if (must_sample_ || !growing_)
    return must_sample_ || now_us - sampled_us_ >= sample_gap_us;
  const piece& last = pieces_.back();
  return now_us - sampled_us_ >= piece_us || last.step_end - last.step_begin >= piece_steps ||
         last.label_tokens >= piece_tokens;
}

void unproven_work::step(uint64_t number, uint64_t label_tokens, std::optional<first_step> sampled,
                         int64_t now_us) {
  if (sampled) {
    must_sample_ = false;
    sampled_us_ = now_us;
  }
  if (!growing_ || sampled) {
    auto& made = pieces_.emplace_back();
    made.step_begin = number - 1;
    if (!rounds_.empty())
      made.hash_of = rounds_.back();
    made.model_hash_start = outer_hash_;
    made.uncommitted = std::move(sampled);
    growing_ = true;
    if (pieces_.size() > pieces_max) {
      if (given_up_++ % pieces_max == 0)
        log::warn("trainer",
                  "work-not-proven steps={}-{} why=\"more than proofs can tell of, or none could be made\"",
                  pieces_.front().step_begin, pieces_.front().step_end);
      pieces_.pop_front();
    }
  }
  pieces_.back().step_end = number;
  pieces_.back().label_tokens += label_tokens;
}

void unproven_work::commit(const committer& to) {
  for (auto& piece : pieces_)
    if (piece.uncommitted && piece.has_hash()) {
      const auto first = std::move(*std::exchange(piece.uncommitted, std::nullopt));
      if (!to(first, piece))
        piece.commitment.clear();
    }
}

void unproven_work::round_ended(uint64_t inner_step) {
  close();
  rounds_.push_back(inner_step);
}

void unproven_work::outer_saved(uint64_t inner_step, const std::string& hash) {
  std::erase_if(rounds_, [&](uint64_t round) { return round <= inner_step; });
  if (!hash.empty())
    outer_hash_ = hash;
  // Checkpoints end in the order in which they began: one that is older and not heard of failed as well.
  for (auto& piece : pieces_)
    if (piece.hash_of && *piece.hash_of <= inner_step) {
      piece.model_hash_start = outer_hash_;
      piece.hash_of.reset();
    }
}

offered_work unproven_work::offer(uint64_t tokens_max, uint64_t steps_max) {
  // What no proof can begin with is lost: never committed to, or of a round whose weights were never on disk.
  const auto lost = [](const piece& one) {
    return !one.hash_of && (one.model_hash_start.empty() || (!one.can_begin() && !one.uncommitted));
  };
  while (!pieces_.empty() && lost(pieces_.front()) && !(growing_ && pieces_.size() == 1))
    pieces_.pop_front();
  if (pieces_.empty() || !pieces_.front().can_begin())
    return {};
  offered_work best;
  offered_work run;
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const auto& piece = pieces_[i];
    if (!piece.has_hash() || (i > 0 && piece.step_begin != run.step_end))
      break;
    if (i == 0) {
      run.step_begin = piece.step_begin;
      run.commitment = known_digest(piece.commitment);
      run.data_hash = known_digest(piece.data_hash);
      run.loss_e6 = piece.loss_e6;
      run.gradient_norm_e6 = piece.gradient_norm_e6;
    }
    run.step_end = piece.step_end;
    run.label_tokens += piece.label_tokens;
    // The check that no step holds more labels than positions is over the whole run.
    run.batch_size = std::max(run.batch_size, piece.batch_size);
    run.seq_len = std::max(run.seq_len, piece.seq_len);
    const auto hash = known_digest(piece.model_hash_start);
    if (run.segments.empty() || run.segments.back().model_hash != hash)
      run.segments.push_back({hash, piece.step_begin, piece.step_end});
    else
      run.segments.back().step_end = piece.step_end;
    if (run.label_tokens > tokens_max || run.step_end - run.step_begin > steps_max ||
        run.segments.size() > segments_max)
      break;
    const bool next_can_begin =
        i + 1 == pieces_.size() || pieces_[i + 1].can_begin() || pieces_[i + 1].uncommitted;
    if (next_can_begin && run.label_tokens > 0)
      best = run;
  }
  if (best.step_end == pieces_.back().step_end) {
    close();
    must_sample_ = true;
  }
  return best;
}

void unproven_work::proven(uint64_t step_begin, uint64_t step_end) {
  const size_t before = pieces_.size();
  std::erase_if(pieces_,
                [&](const piece& one) { return one.step_begin >= step_begin && one.step_end <= step_end; });
  if (pieces_.empty() && before > 0)
    close();
}

std::vector<unclaimed_work> unproven_work::open(uint64_t inner_step) const {
  std::vector<unclaimed_work> all;
  for (const auto& piece : pieces_) {
    const bool goes_on = !all.empty() && piece.step_begin == all.back().step_end;
    if (piece.step_end <= inner_step && (piece.can_begin() || goes_on) && piece.label_tokens > 0 &&
        all.size() < unclaimed_max && (piece.hash_of || piece.has_hash()))
      all.push_back(piece);
  }
  return all;
}

std::optional<uint64_t> unproven_work::outer_under_way() const {
  return rounds_.empty() ? std::nullopt : std::optional(rounds_.back());
}

} // namespace neuroshard
