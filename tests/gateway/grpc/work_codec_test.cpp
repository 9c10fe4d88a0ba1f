#include "gateway/grpc/server.hpp"
#include "gateway/grpc/work_codec.hpp"
#include "tests/gateway/grpc/buffers.hpp"
#include "tests/gateway/grpc/work_samples.hpp"
#include "tests/support/test.hpp"

#include <zstd.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>

using namespace neuroshard;
using namespace neuroshard::test;
using rpc::call_header;

namespace {

const std::string hex32 = std::string(31, 'a') + "1";

work_hop sample_hop(uint32_t begin) {
  work_hop hop{hex32, "10.0.0.1:9000", begin, begin + 2, {}};
  hop.tls_cert_sha256.emplace().fill(7);
  return hop;
}

signed_blob sample_blob() {
  signed_blob blob;
  blob.payload = "payload";
  blob.key.fill(2);
  blob.sig.fill(3);
  blob.delegation = "delegation";
  return blob;
}

work_header sample_header() {
  return {"0123456789abcdef", std::string(32, 'e'), 17, "0011223344556677", 0, "a-trace"};
}

/// Every field of a request that a mode may have is set to something of its own.
routed_forward sample_forward() {
  routed_forward made;
  auto& w = made.work;
  w.header = sample_header();
  w.mode = forward_mode::train;
  w.layer_begin = 2;
  w.layer_end = 5;
  w.hidden = sample_tensor(kernels::dtype::bf16, {2, 3, 768});
  w.token_ids = sample_tensor(kernels::dtype::i32, {2, 3}, 2);
  w.positions = sample_tensor(kernels::dtype::i32, {2, 3}, 3);
  w.labels = sample_tensor(kernels::dtype::i32, {2, 3}, 4);
  w.sequence_lengths = {3, 2};
  w.cache_position = 9;
  w.apply_head = true;
  w.sample = sample_spec{0.5F, 40, 0.9F, 11, 12, 13, true};
  w.microbatch_id = 6;
  w.step = 1'234'567'890'123;
  w.reply_dtype = kernels::dtype::bf16;
  w.close_session = true;
  w.loss_scale = 0.25F;
  w.rows = {{std::string(32, '1'), 4, sample_spec{0, 1, 1, 2, 3, 4, false}, "inf_1", true},
            {std::string(32, '2'), 5, sample_spec{1, 0, 1, 5, 6, 7, true}, "inf_2", false}};
  w.last_microbatch = true;
  w.omit_tensors = true;
  made.route = {sample_hop(5), {hex32, "host.example:1", 7, 9, {}}};
  return made;
}

void check_same(const sample_spec& a, const sample_spec& b) {
  CHECK(a.temperature == b.temperature);
  CHECK(a.top_k == b.top_k);
  CHECK(a.top_p == b.top_p);
  CHECK(a.seed == b.seed);
  CHECK(a.step == b.step);
  CHECK(a.valid_vocab == b.valid_vocab);
  CHECK(a.want_logprob == b.want_logprob);
}

void check_same(const work_header& a, const work_header& b) {
  CHECK(a.request_id == b.request_id);
  CHECK(a.session_id == b.session_id);
  CHECK(a.model_version == b.model_version);
  CHECK(a.architecture_id == b.architecture_id);
  CHECK(a.trace_id == b.trace_id);
}

void check_same(const std::vector<work_hop>& a, const std::vector<work_hop>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].node_id == b[i].node_id);
    CHECK(a[i].address == b[i].address);
    CHECK(a[i].layer_begin == b[i].layer_begin);
    CHECK(a[i].layer_end == b[i].layer_end);
    CHECK(a[i].tls_cert_sha256 == b[i].tls_cert_sha256);
  }
}

void check_same(const std::vector<hop_report>& a, const std::vector<hop_report>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].node_id == b[i].node_id);
    CHECK(a[i].share.cache_length == b[i].share.cache_length);
    CHECK(a[i].share.compute_us == b[i].share.compute_us);
    CHECK(a[i].share.queue_us == b[i].share.queue_us);
    CHECK(a[i].share.ready == b[i].share.ready);
    CHECK(a[i].share.grad_norm_sq == b[i].share.grad_norm_sq);
    CHECK(a[i].share.optimizer_step == b[i].share.optimizer_step);
  }
}

void check_same(const std::vector<signed_blob>& a, const std::vector<signed_blob>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i)
    CHECK((a[i].payload == b[i].payload && a[i].key == b[i].key && a[i].sig == b[i].sig &&
           a[i].delegation == b[i].delegation));
}

/// The field a request is refused for; "ok" when it is not.
std::string field_of(const grpc::ByteBuffer& bytes) {
  routed_forward made;
  Header header;
  const auto why = rpc::read(bytes, made, header);
  if (!why)
    return "ok";
  CHECK(code_of(why) == errc::invalid_request);
  return problem_of(why).field;
}
template <class Change>
std::string field_after(Change change) {
  auto message = plain_forward();
  change(message);
  return field_of(in_slices(message.SerializeAsString()));
}

std::string squeezed(const std::string& bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), 0);
  out.resize(ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 3));
  return out;
}

void fill_zstd(Tensor& to, const std::string& raw, std::string data, const std::vector<int64_t>& shape) {
  fill(to, DTYPE_BF16, shape, raw);
  to.set_codec(CODEC_ZSTD);
  to.set_data(std::move(data));
}

} // namespace

TEST_CASE("a Forward goes over the wire with every field, in whatever slices it comes") {
  const auto sent = sample_forward();
  grpc::ByteBuffer bytes;
  REQUIRE_FALSE(rpc::write(sent, call_header{"0123456789abcdef", 777}, bytes));
  for (const size_t each : {size_t{0}, size_t{1}, size_t{7}, size_t{1'000}}) {
    routed_forward got;
    Header header;
    REQUIRE_FALSE(rpc::read(in_slices(text_of(bytes), each), got, header));
    CHECK(header.budget_ms() == 777);
    const auto &a = sent.work, &b = got.work;
    check_same(a.header, b.header);
    CHECK(a.mode == b.mode);
    CHECK(a.layer_begin == b.layer_begin);
    CHECK(a.layer_end == b.layer_end);
    CHECK(same_tensor(a.hidden, b.hidden));
    CHECK(same_tensor(a.token_ids, b.token_ids));
    CHECK(same_tensor(a.positions, b.positions));
    CHECK(same_tensor(a.labels, b.labels));
    CHECK(a.sequence_lengths == b.sequence_lengths);
    CHECK(a.cache_position == b.cache_position);
    CHECK(a.apply_head == b.apply_head);
    REQUIRE(b.sample.has_value());
    check_same(*a.sample, *b.sample);
    CHECK(a.microbatch_id == b.microbatch_id);
    CHECK(a.step == b.step);
    CHECK(a.reply_dtype == b.reply_dtype);
    CHECK(a.close_session == b.close_session);
    CHECK(a.loss_scale == b.loss_scale);
    REQUIRE(a.rows.size() == b.rows.size());
    for (size_t i = 0; i < a.rows.size(); ++i) {
      CHECK(a.rows[i].session_id == b.rows[i].session_id);
      CHECK(a.rows[i].cache_position == b.rows[i].cache_position);
      CHECK(a.rows[i].request_id == b.rows[i].request_id);
      CHECK(a.rows[i].close == b.rows[i].close);
      REQUIRE(b.rows[i].sample.has_value());
      check_same(*a.rows[i].sample, *b.rows[i].sample);
    }
    CHECK(a.last_microbatch == b.last_microbatch);
    CHECK(a.omit_tensors == b.omit_tensors);
    check_same(sent.route, got.route);
  }
  ForwardRequest parsed; // what protobuf reads is the same message
  REQUIRE(parsed.ParseFromString(text_of(bytes)));
  CHECK(parsed.hidden().data().size() == sent.work.hidden.view.bytes());
  CHECK(parsed.hidden().codec() == CODEC_NONE);
}

TEST_CASE("a Forward's reply goes over the wire with every field") {
  routed_forward_reply sent;
  sent.work.request_id = "0123456789abcdef";
  sent.work.hidden = sample_tensor(kernels::dtype::f32, {2, 1, 4'000});
  sent.work.logits = sample_tensor(kernels::dtype::f32, {2, 64}, 2);
  sent.work.grad_hidden = sample_tensor(kernels::dtype::bf16, {2, 1, 16}, 3);
  sent.work.sampled = {5, -1};
  sent.work.logprobs = {-0.5F, 0};
  sent.work.loss = 2.5;
  sent.work.label_count = 8;
  sent.work.aux_loss = 0.125;
  sent.work.rows = {{row_status::ok, 12, 0, ""}, {row_status::evicted, 0, 0, hex32}};
  sent.hops = {{hex32, {1, 2, 3, true, 4.5, 6}}, {std::string(32, 'b'), {}}};
  sent.receipts = {sample_blob()};
  grpc::ByteBuffer bytes;
  REQUIRE_FALSE(rpc::write(sent, bytes));
  routed_forward_reply got;
  REQUIRE_FALSE(rpc::read(in_slices(text_of(bytes), 999), got));
  const auto &a = sent.work, &b = got.work;
  CHECK(a.request_id == b.request_id);
  CHECK(same_tensor(a.hidden, b.hidden));
  CHECK(same_tensor(a.logits, b.logits));
  CHECK(same_tensor(a.grad_hidden, b.grad_hidden));
  CHECK(a.sampled == b.sampled);
  CHECK(a.logprobs == b.logprobs);
  CHECK(a.loss == b.loss);
  CHECK(a.label_count == b.label_count);
  CHECK(a.aux_loss == b.aux_loss);
  REQUIRE(b.rows.size() == 2);
  CHECK(b.rows[0].status == row_status::ok);
  CHECK(b.rows[0].cache_length == 12);
  CHECK(b.rows[1].status == row_status::evicted);
  CHECK(b.rows[1].failed_node == hex32);
  check_same(sent.hops, got.hops);
  check_same(sent.receipts, got.receipts);
}

TEST_CASE("a Backward and its reply go over the wire with every field") {
  routed_backward sent;
  sent.work.header = sample_header();
  sent.work.layer_begin = 1;
  sent.work.layer_end = 4;
  sent.work.microbatch_id = 3;
  sent.work.step = 99;
  sent.work.grad_output = sample_tensor(kernels::dtype::bf16, {1, 5, 2'000});
  sent.work.action = backward_action::gradient;
  sent.work.reply_dtype = kernels::dtype::f32;
  sent.route = {sample_hop(0)};
  grpc::ByteBuffer bytes;
  REQUIRE_FALSE(rpc::write(sent, call_header{"0123456789abcdef", 5}, bytes));
  routed_backward got;
  Header header;
  REQUIRE_FALSE(rpc::read(bytes, got, header));
  check_same(sent.work.header, got.work.header);
  CHECK(got.work.layer_begin == 1);
  CHECK(got.work.layer_end == 4);
  CHECK(got.work.microbatch_id == 3);
  CHECK(got.work.step == 99);
  CHECK(same_tensor(sent.work.grad_output, got.work.grad_output));
  CHECK(got.work.action == backward_action::gradient);
  CHECK(got.work.reply_dtype == kernels::dtype::f32);
  check_same(sent.route, got.route);

  routed_backward_reply reply;
  reply.work.request_id = "0123456789abcdef";
  reply.work.grad_input = sample_tensor(kernels::dtype::f32, {1, 5, 8});
  reply.work.inner_steps = 50;
  reply.hops = {{hex32, {0, 2, 3, true, 4.5, 6}}};
  reply.receipts = {sample_blob()};
  REQUIRE_FALSE(rpc::write(reply, bytes));
  routed_backward_reply heard;
  REQUIRE_FALSE(rpc::read(bytes, heard));
  CHECK(heard.work.request_id == reply.work.request_id);
  CHECK(same_tensor(heard.work.grad_input, reply.work.grad_input));
  CHECK(heard.work.inner_steps == 50);
  check_same(reply.hops, heard.hops);
  check_same(reply.receipts, heard.receipts);
}

TEST_CASE("a tensor is sent from where it lies, and read from where it was received") {
  routed_forward sent;
  sent.work.header = sample_header();
  sent.work.hidden = sample_tensor(kernels::dtype::bf16, {1, 64, 768});
  const std::weak_ptr<const void> kept = sent.work.hidden.owner;
  const auto* const lies = static_cast<const uint8_t*>(sent.work.hidden.view.data);
  grpc::ByteBuffer bytes;
  REQUIRE_FALSE(rpc::write(sent, call_header{"0123456789abcdef", 5}, bytes));
  std::vector<grpc::Slice> slices;
  REQUIRE(bytes.Dump(&slices).ok());
  CHECK(std::any_of(slices.begin(), slices.end(), [&](const auto& s) { return s.begin() == lies; }));
  sent = {};
  CHECK_FALSE(kept.expired());

  // In one slice, with the data where its type needs them: in place.
  const auto text = text_of(bytes);
  const auto data_at = text.size() - 64 * 768 * 2;
  for (const size_t shift : {size_t{0}, size_t{1}}) {
    std::vector<uint8_t> memory(text.size() + 64);
    auto* const base = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    auto* const start = base + (data_at + shift) % 2;
    std::memcpy(start, text.data(), text.size());
    const grpc::Slice whole(start, text.size(), grpc::Slice::STATIC_SLICE);
    const grpc::ByteBuffer one{&whole, 1};
    routed_forward got;
    Header header;
    REQUIRE_FALSE(rpc::read(one, got, header));
    const auto* const found = static_cast<const uint8_t*>(got.work.hidden.view.data);
    const bool inside = found >= start && found < start + text.size();
    CHECK(inside == ((data_at + reinterpret_cast<uintptr_t>(start)) % 2 == 0));
    CHECK(reinterpret_cast<uintptr_t>(found) % 2 == 0);
  }
  slices.clear();
  bytes.Clear();
  CHECK(kept.expired());
}

TEST_CASE("a received tensor outlives the message it came in") {
  routed_forward got;
  {
    auto message = plain_forward();
    fill(*message.mutable_hidden(), DTYPE_I8, {1}, "x");
    fill(*message.mutable_hidden(), DTYPE_F32, {1, 1, 2}, std::string(8, '\x3c')); // a slice within itself
    Header header;
    REQUIRE_FALSE(rpc::read(in_slices(message.SerializeAsString()), got, header));
  }
  CHECK(std::memcmp(got.work.hidden.view.data, "\x3c\x3c\x3c\x3c\x3c\x3c\x3c\x3c", 8) == 0);
}

TEST_CASE("shapes that lie are refused before anything is allocated") {
  const auto with_shape = [](std::vector<int64_t> shape) {
    return field_after(
        [&](ForwardRequest& m) { fill(*m.mutable_hidden(), DTYPE_BF16, shape, std::string(16, '\x3c')); });
  };
  CHECK(with_shape({1, 1, 8}) == "ok");
  CHECK(with_shape({8}) == "ok");
  CHECK(with_shape({2, 1, 2, 2}) == "ok");
  CHECK(with_shape({}) == "hidden");
  CHECK(with_shape({1, 1, 1, 1, 8}) == "hidden");
  CHECK(with_shape({1, 0, 8}) == "hidden");
  CHECK(with_shape({-1, -1, 8}) == "hidden");
  CHECK(with_shape({1, 1, 9}) == "hidden");
  CHECK(with_shape({1, 1, 7}) == "hidden");
  const int64_t most = std::numeric_limits<int64_t>::max();
  CHECK(with_shape({most, most, most, most}) == "hidden");
  CHECK(with_shape({int64_t{1} << 32, int64_t{1} << 32, 8}) == "hidden"); // the product is 0 in 64 bits
  CHECK(with_shape({1, 1, std::numeric_limits<int64_t>::min()}) == "hidden");
  CHECK(with_shape({64 * 1024 * 1024 / 2 + 1}) == "hidden");
}

TEST_CASE("a wrong checksum, a value that is not finite and a wrong type are refused") {
  CHECK(field_after([](ForwardRequest& m) { m.mutable_hidden()->set_crc32c(1); }) == "hidden");
  for (const std::string& bad : {std::string("\x80\x7f", 2), std::string("\xc0\xff", 2)})
    for (const size_t at : {size_t{0}, size_t{6}, size_t{14}})
      CHECK(field_after([&](ForwardRequest& m) {
              auto data = m.hidden().data();
              data.replace(at, 2, bad);
              fill(*m.mutable_hidden(), DTYPE_BF16, {1, 1, 8}, data);
            }) == "hidden");
  CHECK(field_after([](ForwardRequest& m) {
          fill(*m.mutable_hidden(), DTYPE_I32, {1, 1, 4}, std::string(16, '\x3c'));
        }) == "hidden");
  CHECK(field_after([](ForwardRequest& m) { m.mutable_hidden()->set_dtype(DTYPE_UNSPECIFIED); }) == "hidden");
  CHECK(field_after([](ForwardRequest& m) { m.mutable_hidden()->set_dtype(static_cast<DType>(50)); }) ==
        "hidden");
  CHECK(field_after([](ForwardRequest& m) { m.mutable_hidden()->set_codec(CODEC_UNSPECIFIED); }) == "hidden");
  CHECK(field_after([](ForwardRequest& m) { m.mutable_hidden()->set_codec(static_cast<Codec>(9)); }) ==
        "hidden");
  // What are numbers may look like a NaN.
  CHECK(field_after([](ForwardRequest& m) {
          fill(*m.mutable_labels(), DTYPE_I32, {1, 1}, std::string(4, '\xff'));
        }) == "ok");
  CHECK(field_after([](ForwardRequest& m) {
          fill(*m.mutable_labels(), DTYPE_F32, {1, 1}, std::string(4, '\x3c'));
        }) == "labels");
}

TEST_CASE("a NaN is seen in a tensor of many slices, also across their border") {
  for (size_t at = 0; at < 64; ++at) {
    auto message = plain_forward();
    std::string data(256, '\x3c');
    data.replace(at * 4, 4, std::string("\x00\x00\xc0\x7f", 4));
    fill(*message.mutable_hidden(), DTYPE_F32, {1, 1, 64}, data);
    CHECK(field_of(in_slices(message.SerializeAsString(), 13)) == "hidden");
  }
}

TEST_CASE("zstd is read up to the length the shape says, and a bomb no further") {
  const std::string raw(64 * 1'024, '\x3c');
  const auto with = [&](std::string data, std::vector<int64_t> shape = {1, 64, 512}) {
    return field_after(
        [&](ForwardRequest& m) { fill_zstd(*m.mutable_hidden(), raw, std::move(data), shape); });
  };
  const auto good = squeezed(raw);
  CHECK(with(good) == "ok");
  CHECK(with(squeezed(std::string(64 * 1'024 * 1'024, '\0'))) == "hidden"); // a bomb
  CHECK(with(squeezed(raw.substr(1))) == "hidden");
  CHECK(with(good.substr(0, good.size() - 1)) == "hidden");
  CHECK(with(good + good) == "hidden");
  CHECK(with(good + "x") == "hidden");
  CHECK(with("not zstd at all") == "hidden");
  CHECK(with("") == "hidden");
  auto nan = raw;
  nan.replace(0, 2, std::string("\x80\x7f", 2));
  CHECK(field_after([&](ForwardRequest& m) {
          fill_zstd(*m.mutable_hidden(), nan, squeezed(nan), {1, 64, 512});
        }) == "hidden");
  for (const size_t each : {size_t{1}, size_t{5}, size_t{0}}) {
    auto message = plain_forward();
    fill_zstd(*message.mutable_hidden(), raw, good, {1, 64, 512});
    CHECK(field_of(in_slices(message.SerializeAsString(), each)) == "ok");
  }
}

TEST_CASE("lengths of 4 GiB, truncated messages, groups and a tensor twice are refused") {
  const auto whole = plain_forward().SerializeAsString();
  CHECK(field_of(in_slices(whole)) == "ok");
  for (size_t length = 0; length < whole.size(); ++length) {
    routed_forward made;
    Header header;
    // What ends behind a field is a message, but not one with this tensor.
    if (!rpc::read(in_slices(whole.substr(0, length)), made, header))
      CHECK_FALSE(made.work.hidden);
  }
  for (const char* const start : {"\x0a", "\x2a", "\x32", "\x92\x01"}) // header, hidden, token_ids, route
    for (const std::string& length :
         {std::string("\xff\xff\xff\xff\x0f"), std::string("\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
          std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
          std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")})
      CHECK(field_of(in_slices(whole + start + length)) == "");
  // Within a tensor: data longer than the tensor, a field that ends beyond it.
  CHECK(field_of(in_slices(whole + std::string("\x32\x03\x1a\x7f\x01", 5) + std::string(200, 'x'))) == "");
  CHECK(field_of(in_slices(whole + std::string("\x32\x01\x08\x01", 4))) == "");
  CHECK(field_of(in_slices(whole + std::string("\x32\x04\x1a\x00\x1a\x00", 6))) == ""); // data twice
  CHECK(field_of(in_slices(whole + std::string("\x2a\x00", 2))) == "");                 // hidden twice
  CHECK(field_of(in_slices(whole + std::string("\x28\x01", 2))) == "");                 // hidden a number
  CHECK(field_of(in_slices(whole + std::string("\x0b\x0c", 2))) == "");                 // a group
  CHECK(field_of(in_slices(whole + std::string("\x00\x01", 2))) == "");                 // field 0
  CHECK(field_of(in_slices(whole + std::string("\x92\x03\x02", 3) + "xy")) == "ok");    // field 50, to come
  CHECK(field_of(in_slices(whole + std::string("\x92\x03\x81\x80\x80\x02", 6) +
                           std::string(4 * 1024 * 1024 + 1, 'x'))) == ""); // too much beside the tensors
  CHECK(field_of(grpc::ByteBuffer{}) != "ok");
}

TEST_CASE("values out of range and too many of anything are refused by name") {
  CHECK(field_after([](ForwardRequest& m) { m.set_mode(FORWARD_MODE_UNSPECIFIED); }) == "mode");
  CHECK(field_after([](ForwardRequest& m) { m.set_mode(static_cast<ForwardMode>(6)); }) == "mode");
  CHECK(field_after([](ForwardRequest& m) { m.set_reply_dtype(static_cast<DType>(7)); }) == "reply_dtype");
  CHECK(field_after([](ForwardRequest& m) { m.set_layer_end(0); }) == "layer_end");
  CHECK(field_after([](ForwardRequest& m) { m.set_layer_end(4'000'000'000U); }) == "layer_end");
  CHECK(field_after([](ForwardRequest& m) { m.mutable_header()->set_session_id(std::string(65, 'x')); }) ==
        "header.session_id");
  CHECK(field_after([](ForwardRequest& m) { m.mutable_header()->set_architecture_id("a\nb"); }) ==
        "header.architecture_id");
  for (const auto& trace : {std::string(65, 'x'), std::string("a\nb"), std::string("a b")})
    CHECK(field_after([&](ForwardRequest& m) { m.mutable_header()->set_trace_id(trace); }) ==
          "header.trace_id");
  for (const float scale : {0.0F, -1.0F, 1.5F, std::numeric_limits<float>::quiet_NaN()})
    CHECK(field_after([&](ForwardRequest& m) {
            m.set_mode(FORWARD_MODE_TRAIN);
            m.set_loss_scale(scale);
          }) == "loss_scale");
  CHECK(field_after([](ForwardRequest& m) {
          m.mutable_sample()->set_temperature(std::numeric_limits<float>::quiet_NaN());
        }) == "sample");
  CHECK(field_after([](ForwardRequest& m) { m.mutable_sample()->set_top_p(2); }) == "sample");
  CHECK(field_after([](ForwardRequest& m) {
          for (int i = 0; i < 4'097; ++i)
            m.add_rows()->set_session_id("s");
        }) == "rows");
  CHECK(field_after([](ForwardRequest& m) {
          m.add_rows()->set_session_id("s");
          m.add_rows()->set_session_id("t");
          m.mutable_rows(1)->mutable_sample();
        }) == "rows.sample");
  CHECK(field_after([](ForwardRequest& m) { m.add_rows(); }) == "rows.session_id");
  CHECK(field_after([](ForwardRequest& m) {
          for (int i = 0; i < 4'097; ++i)
            m.add_sequence_lengths(1);
        }) == "sequence_lengths");
  const auto with_hop = [](auto change) {
    return field_after([&](ForwardRequest& m) {
      auto& hop = *m.add_route();
      hop.set_node_id(hex32);
      hop.set_address("a:1");
      change(m, hop);
    });
  };
  CHECK(with_hop([](auto&, Hop&) {}) == "ok");
  CHECK(with_hop([](auto&, Hop& h) { h.set_node_id("A"); }) == "route.node_id");
  CHECK(with_hop([](auto&, Hop& h) { h.set_address(std::string(261, 'a')); }) == "route.address");
  CHECK(with_hop([](auto&, Hop& h) { h.set_address("a b"); }) == "route.address");
  CHECK(with_hop([](auto&, Hop& h) { h.set_layer_begin(1); }) == "route.layer_end");
  CHECK(with_hop([](auto&, Hop& h) { h.set_tls_cert_sha256("short"); }) == "route.tls_cert_sha256");
  CHECK(with_hop([](ForwardRequest& m, Hop& h) {
          for (size_t i = 0; i < route_hops_max; ++i)
            *m.add_route() = h;
        }) == "route");

  BackwardRequest backward;
  *backward.mutable_header() = plain_forward().header();
  const auto action = [&](int value) {
    backward.set_action(static_cast<BackwardAction>(value));
    routed_backward made;
    Header header;
    const auto why = rpc::read(in_slices(backward.SerializeAsString()), made, header);
    return why ? problem_of(why).field : std::string("ok");
  };
  CHECK(action(0) == "action");
  CHECK(action(5) == "action");
  CHECK(action(4) == "ok");
}

TEST_CASE("what a peer replies is bounded too; what is wrong with it is the peer's fault") {
  const auto reads = [](const ForwardResponse& message) {
    routed_forward_reply made;
    const auto why = rpc::read(in_slices(message.SerializeAsString()), made);
    if (why) {
      CHECK(code_of(why) == errc::unavailable);
      CHECK(problem_of(why).reason == "bad_reply");
    }
    return !why;
  };
  ForwardResponse message;
  message.set_request_id("0123456789abcdef");
  CHECK(reads(message));
  auto changed = message;
  fill(*changed.mutable_logits(), DTYPE_F32, {1, 1}, std::string("\x00\x00\x80\x7f", 4));
  CHECK_FALSE(reads(changed));
  changed = message;
  for (size_t i = 0; i < route_hops_max + 2; ++i)
    changed.add_hops()->set_node_id(hex32);
  CHECK_FALSE(reads(changed));
  changed = message;
  changed.add_hops()->set_node_id("somebody");
  CHECK_FALSE(reads(changed));
  changed = message;
  changed.add_receipts();
  CHECK_FALSE(reads(changed));
  for (const double loss : {std::numeric_limits<double>::infinity(), std::nan("")}) {
    changed = message;
    changed.set_aux_loss(loss);
    CHECK_FALSE(reads(changed));
  }
  changed = message;
  changed.mutable_sampled()->Resize(4'097, 1);
  CHECK_FALSE(reads(changed));
  changed = message;
  changed.add_rows()->set_failed_node("somebody");
  CHECK_FALSE(reads(changed));
  // A status to come does not spoil the other rows.
  changed = message;
  changed.add_rows()->set_status(static_cast<RowStatus>(9));
  changed.add_rows()->set_status(ROW_STATUS_OK);
  routed_forward_reply made;
  CHECK_FALSE(rpc::read(in_slices(changed.SerializeAsString()), made));
  CHECK(made.work.rows[0].status != row_status::ok);
  CHECK(made.work.rows[1].status == row_status::ok);
}

TEST_CASE("bytes changed at random are read or refused, and nothing else") {
  const char* const given = std::getenv("NEUROSHARD_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  MESSAGE("NEUROSHARD_TEST_SEED=", seed);
  rpc::log_to_node_log();
  std::mt19937_64 rng{seed};
  grpc::ByteBuffer sent;
  REQUIRE_FALSE(rpc::write(sample_forward(), call_header{"0123456789abcdef", 5}, sent));
  const auto whole = text_of(sent);
  // The tensor's bytes are most of the message: what is before them is what matters.
  const auto head = whole.substr(0, whole.size() - 9'300);
  size_t read = 0;
  for (int round = 0; round < 20'000; ++round) {
    auto bytes = rng() % 4 == 0 ? head : whole;
    const size_t changes = 1 + rng() % 4;
    for (size_t i = 0; i < changes; ++i) {
      const size_t at = rng() % (rng() % 3 == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 600));
      switch (rng() % 4) {
      case 0:
        bytes[at] = static_cast<char>(rng());
        break;
      case 1:
        bytes.erase(at, 1 + rng() % 8);
        break;
      case 2:
        bytes.insert(at, 1 + rng() % 8, static_cast<char>(rng()));
        break;
      default:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << rng() % 8));
      }
      if (bytes.empty())
        break;
    }
    const auto buffer = in_slices(bytes, rng() % 3 == 0 ? 0 : 1 + rng() % 500);
    routed_forward forward;
    routed_backward backward;
    routed_forward_reply forward_reply;
    routed_backward_reply backward_reply;
    Header header;
    read += !rpc::read(buffer, forward, header);
    (void)rpc::read(buffer, backward, header);
    (void)rpc::read(buffer, forward_reply);
    (void)rpc::read(buffer, backward_reply);
  }
  CHECK(read < 20'000);
}
