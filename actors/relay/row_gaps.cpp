#include "actors/relay/row_gaps.hpp"

#include <algorithm>
#include <cstring>

namespace neuroshard {

namespace {

/// Zero bytes for a tensor like `from` with another number of rows, and where its rows begin.
tensor_handle zeros_like(const tensor_handle& from, size_t rows) {
  auto view = from.view;
  const uint64_t row_bytes = view.shape[0] > 0 ? view.bytes() / static_cast<uint64_t>(view.shape[0]) : 0;
  auto bytes = std::make_shared<std::vector<std::byte>>(rows * row_bytes);
  view.data = bytes->data();
  view.shape[0] = static_cast<int64_t>(rows);
  tensor_handle handle;
  handle.view = view;
  handle.owner = std::move(bytes);
  return handle;
}

} // namespace

row_gaps::row_gaps(std::vector<row_reply> here) : here_(std::move(here)) {
  failed_ = static_cast<size_t>(std::count_if(
      here_.begin(), here_.end(), [](const row_reply& row) { return row.status != row_status::ok; }));
}

tensor_handle row_gaps::without_failed(const tensor_handle& from) const {
  auto to = zeros_like(from, passed());
  const auto row_bytes = static_cast<size_t>(from.view.bytes()) / here_.size();
  const auto* source = from.view.as<const std::byte>();
  auto* target = to.view.as<std::byte>();
  for (size_t row = 0; row < here_.size(); ++row) {
    if (failed(row))
      continue;
    std::memcpy(target, source + row * row_bytes, row_bytes);
    target += row_bytes;
  }
  return to;
}

tensor_handle row_gaps::with_failed(const tensor_handle& from) const {
  auto to = zeros_like(from, here_.size());
  const auto row_bytes = static_cast<size_t>(from.view.bytes()) / passed();
  const auto* source = from.view.as<const std::byte>();
  for (size_t row = 0; row < here_.size(); ++row) {
    if (failed(row))
      continue;
    std::memcpy(to.view.as<std::byte>() + row * row_bytes, source, row_bytes);
    source += row_bytes;
  }
  return to;
}

void row_gaps::cut(forward_request& call) const {
  if (!any())
    return;
  std::vector<session_row> rows;
  std::vector<uint32_t> lengths;
  for (size_t row = 0; row < here_.size(); ++row) {
    if (failed(row))
      continue;
    rows.push_back(std::move(call.rows[row]));
    if (!call.sequence_lengths.empty())
      lengths.push_back(call.sequence_lengths[row]);
  }
  call.rows = std::move(rows);
  call.sequence_lengths = std::move(lengths);
  if (call.hidden && passed() > 0)
    call.hidden = without_failed(call.hidden);
}

bool row_gaps::fill(forward_reply& answer, const std::string& node_id) const {
  const size_t went_on = passed();
  const auto fits = [went_on](const auto& of) { return of.empty() || of.size() == went_on; };
  const auto fits_rows = [went_on](const tensor_handle& of) {
    return !of || (of.view.rank > 0 && of.view.shape[0] == static_cast<int64_t>(went_on));
  };
  if (answer.rows.size() != went_on || !fits(answer.sampled) || !fits(answer.logprobs) ||
      !fits_rows(answer.hidden) || !fits_rows(answer.logits))
    return false;
  std::vector<row_reply> rows;
  std::vector<int32_t> sampled;
  std::vector<float> logprobs;
  for (size_t row = 0, next = 0; row < here_.size(); ++row) {
    auto& told = rows.emplace_back(here_[row]);
    if (failed(row)) {
      told.failed_node = node_id;
    } else { // which copy a session is pinned to is this node's own business
      told.status = answer.rows[next].status;
      told.cache_length = answer.rows[next].cache_length;
      told.failed_node = std::move(answer.rows[next].failed_node);
    }
    if (!answer.sampled.empty())
      sampled.push_back(failed(row) ? -1 : answer.sampled[next]);
    if (!answer.logprobs.empty())
      logprobs.push_back(failed(row) ? 0 : answer.logprobs[next]);
    next += failed(row) ? 0 : 1;
  }
  answer.rows = std::move(rows);
  answer.sampled = std::move(sampled);
  answer.logprobs = std::move(logprobs);
  if (!any() || went_on == 0)
    return true;
  if (answer.hidden)
    answer.hidden = with_failed(answer.hidden);
  if (answer.logits)
    answer.logits = with_failed(answer.logits);
  return true;
}

} // namespace neuroshard
