#include "actors/relay/row_gaps.hpp"
#include "tests/support/test.hpp"

#include <numeric>

namespace neuroshard::test {

namespace {

row_reply row_with(row_status status) {
  row_reply row;
  row.status = status;
  row.cache_length = 3;
  row.copy_id = 9;
  return row;
}

tensor_handle counted(std::initializer_list<int64_t> shape) {
  auto owner = std::make_shared<std::vector<float>>();
  tensor_handle handle;
  handle.view = kernels::make_tensor(nullptr, kernels::dtype::f32, shape);
  owner->resize(static_cast<size_t>(handle.view.elements()));
  std::iota(owner->begin(), owner->end(), 1.0F);
  handle.view.data = owner->data();
  handle.owner = owner;
  return handle;
}

} // namespace

TEST_CASE("rows that failed are cut out of a call and put back into its answer") {
  const row_gaps gaps({row_with(row_status::ok), row_with(row_status::evicted), row_with(row_status::ok)});
  REQUIRE(gaps.any());
  CHECK_FALSE(gaps.all());
  forward_request call;
  call.rows.resize(3);
  call.rows[2].session_id = "c";
  call.sequence_lengths = {1, 2, 3};
  call.hidden = counted({3, 2, 2});
  gaps.cut(call);
  REQUIRE(call.rows.size() == 2);
  CHECK(call.rows[1].session_id == "c");
  CHECK(call.sequence_lengths == std::vector<uint32_t>{1, 3});
  REQUIRE(call.hidden.view.shape[0] == 2);
  CHECK(call.hidden.view.as<float>()[4] == 9);

  forward_reply answer;
  answer.rows = {row_with(row_status::ok), row_with(row_status::no_memory)};
  answer.rows[0].cache_length = 7;
  answer.rows[1].failed_node = "further";
  answer.sampled = {5, -1};
  answer.logits = counted({2, 4});
  REQUIRE(gaps.fill(answer, "me"));
  CHECK(answer.sampled == std::vector<int32_t>{5, -1, -1});
  REQUIRE(answer.rows.size() == 3);
  CHECK(answer.rows[0].cache_length == 7);
  CHECK(answer.rows[0].copy_id == 9);
  CHECK(answer.rows[1].status == row_status::evicted);
  CHECK(answer.rows[1].failed_node == "me");
  CHECK(answer.rows[2].status == row_status::no_memory);
  CHECK(answer.rows[2].failed_node == "further");
  REQUIRE(answer.logits.view.shape[0] == 3);
  CHECK(answer.logits.view.as<float>()[3] == 4);
  CHECK(answer.logits.view.as<float>()[4] == 0);
  CHECK(answer.logits.view.as<float>()[8] == 5);
}

TEST_CASE("an answer of another size than what was asked does not fit") {
  const row_gaps gaps({row_with(row_status::ok), row_with(row_status::evicted)});
  forward_reply answer;
  CHECK_FALSE(gaps.fill(answer, "me"));
  answer.rows = {row_with(row_status::ok)};
  answer.sampled = {1, 2};
  CHECK_FALSE(gaps.fill(answer, "me"));
  answer.sampled = {1};
  answer.logits = counted({2, 4});
  CHECK_FALSE(gaps.fill(answer, "me"));
}

} // namespace neuroshard::test
