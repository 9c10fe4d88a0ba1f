#include "kernels/core/sha256.hpp"
#include "kernels/model/architecture.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard::model;
using neuroshard::kernels::code;
using neuroshard::kernels::dtype;

namespace {
architecture pico() {
  return find_preset("pico")->shape;
}
} // namespace

TEST_CASE("the presets have the published parameter counts") {
  CHECK(pico().parameters() == 7'998'720);
  CHECK(pico().layer_parameters() == 983'552);
  CHECK(pico().embed_parameters() == 1'048'576);
  CHECK(find_preset("micro")->shape.layer_parameters() == 15'206'400);
  const auto about = [](const char* name, double millions) {
    const double counted = static_cast<double>(find_preset(name)->shape.parameters()) / 1e6;
    return counted > millions * 0.999 && counted < millions * 1.001;
  };
  CHECK(about("nano", 63.2));
  CHECK(about("micro", 308.8));
  CHECK(about("small", 1591));
  CHECK(about("medium", 4576));
  CHECK(about("large", 18570));
  CHECK(about("xl", 48140));
  CHECK(find_preset("huge") == nullptr);
}

TEST_CASE("every preset passes its own check and has heads of 128, but pico") {
  for (const preset& p : presets()) {
    INFO(p.name);
    CHECK(check(p.shape).ok());
    CHECK(p.shape.head_dim() == (p.name == "pico" ? 64 : 128));
  }
  CHECK(find_preset("pico")->training.peak_learning_rate == 2e-3);
  CHECK(find_preset("pico")->training.microbatches == 1);
  CHECK(find_preset("xl")->training.decay_steps == 50000);
}

TEST_CASE("an architecture goes to canonical JSON and back, and its id is the hash of that text") {
  const std::string json = canonical_json(pico());
  CHECK(
      json ==
      "{\"ffn_dim\":1024,\"hidden_dim\":256,\"max_seq_len\":2048,\"norm_eps\":\"1e-6\",\"num_experts\":0,"
      "\"num_heads\":4,\"num_kv_heads\":2,\"num_layers\":6,\"rope_base\":\"10000\",\"tie_embeddings\":false,"
      "\"top_k\":0,\"vocab_capacity\":4096}");
  const auto back = parse_architecture(json);
  REQUIRE(back.ok());
  CHECK(*back == pico());
  CHECK(architecture_id(pico()) ==
        neuroshard::kernels::to_hex(neuroshard::kernels::sha256::of(json)).substr(0, 16));
  architecture tied = pico();
  tied.tie_embeddings = true;
  CHECK(architecture_id(tied) != architecture_id(pico()));
  CHECK(parse_architecture(canonical_json(tied))->tie_embeddings);
  // Another order, and blanks.
  std::string spaced = json;
  const std::string last = ",\"vocab_capacity\":4096}";
  spaced.erase(spaced.size() - last.size());
  spaced = " { \"vocab_capacity\" :\n4096 ,\t" + spaced.substr(1) + " } ";
  CHECK(*parse_architecture(spaced) == pico());
}

TEST_CASE("malformed architecture text is refused with a reason") {
  const std::string json = canonical_json(pico());
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = json;
    text.replace(text.find(from), from.size(), to);
    return parse_architecture(text);
  };
  CHECK(replaced("\"top_k\":0", "\"top_k\":0,\"top_k\":0").status().message().find("twice") !=
        std::string::npos);
  CHECK(replaced("\"top_k\":0,", "").status().message().find("top_k") != std::string::npos);
  CHECK(replaced("\"top_k\"", "\"top_q\"").status().message().find("unknown") != std::string::npos);
  CHECK_FALSE(replaced("4096", "4096.0").ok());
  CHECK_FALSE(replaced("4096", "1e3").ok());
  CHECK_FALSE(replaced("4096", "04096").ok());
  CHECK_FALSE(replaced("4096", "99999999999999999999").ok());
  CHECK_FALSE(replaced("4096", "\"4096\"").ok());
  CHECK_FALSE(replaced("\"1e-6\"", "1e-6").ok());
  CHECK_FALSE(replaced("\"1e-6\"", "\"nan\"").ok());
  CHECK_FALSE(replaced("false", "0").ok());
  CHECK_FALSE(replaced("4096}", "4096}x").ok());
  CHECK_FALSE(parse_architecture("").ok());
  CHECK_FALSE(parse_architecture("{").ok());
  CHECK_FALSE(parse_architecture(std::string(5000, ' ')).ok());
  CHECK_FALSE(parse_architecture(std::string(4000, '{')).ok());
  // Every prefix of the text is refused, none crashes.
  for (size_t n = 0; n < json.size(); ++n)
    CHECK_FALSE(parse_architecture(std::string_view(json).substr(0, n)).ok());
}

TEST_CASE("shapes that the kernels cannot run are refused by the name of the field") {
  const auto message = [](auto change) {
    architecture a = pico();
    change(a);
    return check(a).message();
  };
  CHECK(message([](architecture& a) { a.num_layers = 0; }).find("num_layers is 0") == 0);
  CHECK(message([](architecture& a) { a.num_layers = -7; }).find("num_layers is -7") == 0);
  CHECK(message([](architecture& a) { a.hidden_dim = 250; }).find("hidden_dim") == 0);
  CHECK(message([](architecture& a) { a.num_heads = 3; }).find("num_heads") == 0);
  CHECK(message([](architecture& a) { a.num_heads = 0; }).find("num_heads") == 0);
  CHECK(message([](architecture& a) { a.num_kv_heads = 3; }).find("num_kv_heads") == 0);
  CHECK(message([](architecture& a) { a.ffn_dim = 7; }).find("ffn_dim") == 0);
  CHECK(message([](architecture& a) { a.vocab_capacity = 100; }).find("vocab_capacity") == 0);
  CHECK(message([](architecture& a) { a.max_seq_len = 1; }).find("max_seq_len") == 0);
  CHECK(message([](architecture& a) { a.rope_base = "1"; }).find("rope_base") == 0);
  CHECK(message([](architecture& a) { a.norm_eps = "-1"; }).find("norm_eps") == 0);
  architecture moe = pico();
  moe.num_experts = 8;
  CHECK(check(moe).why() == code::unsupported);
  // A free-form shape of the benchmark.
  architecture free = pico();
  free.num_heads = 8;
  free.num_kv_heads = 4;
  free.ffn_dim = 688;
  CHECK(check(free).ok());
}

TEST_CASE("the memory formulas give the published figures") {
  const int64_t n = pico().parameters();
  CHECK(training_memory(n, dtype::bf16) / 12 * 10 / 1'000'000 == 143); // 144 MB before the 1.2
  CHECK(serving_memory(n, dtype::bf16) == static_cast<uint64_t>(2 * n));
  CHECK(checkpoint_bytes(n, false) / 1'000'000 == 95);
  CHECK(checkpoint_bytes(n, true) / 1'000'000 == 191);
  CHECK(kv_bytes_per_token(pico(), dtype::bf16) == 2 * 2 * 64 * 2);
  CHECK(activation_estimate(pico(), 2048, dtype::f32, false) == 74ULL * 2048 * 256);
  CHECK(activation_estimate(pico(), 2048, dtype::bf16, true) == 2ULL * 2048 * 256);
}
