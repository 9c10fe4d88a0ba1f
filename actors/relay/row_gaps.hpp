#pragma once

#include "actors/layer_worker/layer_worker_actor.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace neuroshard {

/// The rows of a call that failed at this hop: they are left out of what goes on, and put in place again on
/// the way back, so that they do not disturb the other users (spec/grpc-api.md section 4, "Rows").
class row_gaps {
public:
  /// `here`: what this hop answered, one for each row.
  explicit row_gaps(std::vector<row_reply> here);

  bool any() const noexcept { return failed_ > 0; }
  bool all() const noexcept { return failed_ == here_.size(); }
  size_t passed() const noexcept { return here_.size() - failed_; }

  /// Leaves the failed rows out of the call: of rows, sequence_lengths and hidden [batch, seq, d]. Copies the
  /// activations of the others, if any failed.
  void cut(forward_request& call) const;

  /// Makes the answer to the rows that went on that of all rows: a failed one gets `sampled` -1, zero logits,
  /// zero activations and the name of `node_id`. False when the answer does not fit what was asked.
  bool fill(forward_reply& answer, const std::string& node_id) const;

private:
  bool failed(size_t row) const noexcept { return here_[row].status != row_status::ok; }
  tensor_handle without_failed(const tensor_handle& from) const;
  tensor_handle with_failed(const tensor_handle& from) const;

  std::vector<row_reply> here_;
  size_t failed_ = 0;
};

} // namespace neuroshard
