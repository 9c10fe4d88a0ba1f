#pragma once

#include "kernels/text/progress.hpp"
#include "kernels/text/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <string_view>

namespace neuroshard::text {

/// Learns merges from text: the most frequent adjacent pair within the pieces of the pre-tokenizer becomes
/// the next token; of equally frequent pairs the smaller (left id, then right id); a pair seen once is not
/// merged. Pairs that would make a token of more than token_bytes_max bytes are passed over. The result
/// depends on the text alone.
///
/// Distinct pieces are counted once; merging keeps an index of the places of each pair and a heap of pairs,
/// so that the time grows with the number of changed places, not with the size of the corpus. Not
/// thread-safe.
class bpe_learner {
public:
  bpe_learner();
  ~bpe_learner();
  bpe_learner(bpe_learner&&) noexcept;
  bpe_learner& operator=(bpe_learner&&) noexcept;

  /// Counts the pieces of a document. Once the distinct pieces together have 64 MiB, new ones are left out:
  /// what comes up that late decides no merge, and the index needs some 30 bytes for each byte.
  void add(std::string_view document);

  /// Bytes added so far.
  uint64_t bytes() const noexcept;

  /// Learns until the vocabulary has `vocab_size` entries (266 to vocab_size_max) or no pair occurs twice;
  /// reports as "learn-merges". Uses the counts up: the learner is empty afterwards.
  kernels::result<tokenizer> learn(uint32_t vocab_size, const progress& watch = {});

private:
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace neuroshard::text
