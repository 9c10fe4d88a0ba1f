// Proofs made by the real trainer, with checkpoints written by the real checkpointer, are repeated.
#include "actors/proof_keeper/proof_repeat.hpp"
#include "tests/actors/trainer/node_fixture.hpp"

#include <fstream>
#include <utility>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

kernels::device_ptr reference_device(int threads) {
  kernels::device_options how;
  how.threads = threads;
  auto device = kernels::device::open(*kernels::reference_backend(), how);
  REQUIRE(device.ok());
  return *device;
}

/// A node that has trained 14 steps, the tenth of which was an outer one.
struct trained : node_fixture {
  repeat_setup how;
  bool waited = false;

  trained() {
    watch = [this](const training_progress& p) {
      if (p.inner_step == 10 && !std::exchange(waited, true))
        clock->advance_s(31); // so that the next round's first step is committed to as well
    };
    options.enabled = false;
    stage.head_tile_rows =
        model::stage_options{}.head_tile_rows; // sums are in the order of a node's own stage
    spawn();
    start();
    run_to(14);
    how.checkpoints = root.path() + "/checkpoints";
    how.architecture = tiny_architecture();
    how.device = reference_device(1);
    how.data = data.get();
    how.vocab_size = options.vocab_size;
    how.tokenizer_hash = kernels::to_hex(tokens.hash());
    how.microbatches = options.microbatches;
    how.positions_max = options.microbatch_positions_max;
  }

  /// What the trainer committed to with the weights of this outer step.
  gradient_preimage committed(uint64_t step) {
    for (const auto& entry : list_folder(how.checkpoints))
      for (const auto& bytes : money->preimages) {
        const auto preimage = decode_preimage(bytes);
        REQUIRE(preimage);
        if (entry.inner_step == step && entry.id == checkpoint_name(step, preimage->model_hash))
          return *preimage;
      }
    FAIL("nothing was committed to at step " << step);
    return {};
  }
  /// A proof of the steps from there on.
  work_proof proof_of(const gradient_preimage& preimage, uint64_t step) const {
    work_proof proof;
    proof.node_id = options.node_id;
    proof.architecture_id = options.architecture_id;
    proof.step_begin = step;
    proof.step_end = step + 4;
    proof.steps = 4;
    proof.label_tokens = 4 * 64;
    proof.model_hash_start = preimage.model_hash;
    proof.data_hash = preimage.data_hash;
    proof.loss_e6 = preimage.loss_e6;
    proof.batch_size = preimage.batch_size;
    proof.seq_len = preimage.seq_len;
    proof.gradient_commitment = commitment_of(encode_preimage(preimage));
    return proof;
  }
  spot_verdict repeat(const gradient_preimage& preimage, uint64_t step) const {
    const auto verdict = repeat_proof(proof_of(preimage, step), encode_preimage(preimage), how);
    INFO(verdict.status().message());
    REQUIRE(verdict.ok());
    return *verdict;
  }
  kernels::status refused(const work_proof& proof, const gradient_preimage& preimage) const {
    const auto verdict = repeat_proof(proof, encode_preimage(preimage), how);
    REQUIRE_FALSE(verdict.ok());
    return verdict.status();
  }
};

} // namespace

TEST_CASE_FIXTURE(trained, "a step that was trained is repeated bit for bit, on one thread or two") {
  for (const uint64_t step : {0, 10})
    for (const int threads : {1, 2}) {
      how.device = reference_device(threads);
      const auto verdict = repeat(committed(step), step);
      CHECK(verdict.refuted == "");
      CHECK(verdict.repeated);
      CHECK(verdict.gradient_distance == 0);
      CHECK(verdict.norm_distance == 0);
      CHECK(verdict.loss_committed == verdict.loss_repeated);
      CHECK(verdict.loss_repeated == doctest::Approx(losses.at(step + 1)).epsilon(1e-6));
    }
}

TEST_CASE_FIXTURE(trained, "another cut into micro-batches agrees within the tolerance") {
  how.microbatches = 4;
  how.how = agreement::within_tolerance;
  const auto verdict = repeat(committed(10), 10);
  CHECK(verdict.refuted == "");
  CHECK(verdict.gradient_distance < 1e-4);
}

TEST_CASE_FIXTURE(trained, "work that was not done so is refuted with the reason") {
  const auto honest = committed(10);
  auto forged = honest;
  forged.values[7] += 1e-6F;
  CHECK(repeat(forged, 10).refuted == "not_equal");
  forged = honest;
  forged.loss_e6 += 1;
  CHECK(repeat(forged, 10).refuted == "not_equal");
  forged = honest;
  forged.unit_norms_e6[1].second += 1;
  CHECK(repeat(forged, 10).refuted == "not_equal");
  forged = honest;
  forged.unit_norms_e6.pop_back();
  CHECK(repeat(forged, 10).refuted == "other_units");

  how.how = agreement::within_tolerance;
  forged = honest;
  for (float& value : forged.values)
    value *= 1.06F;
  CHECK(repeat(forged, 10).refuted == "gradient");
  CHECK(repeat(forged, 10).gradient_distance == doctest::Approx(0.06).epsilon(1e-3));
  forged = honest;
  forged.loss_e6 += forged.loss_e6 / 50;
  CHECK(repeat(forged, 10).refuted == "loss");
  forged = honest;
  forged.data_hash[0] ^= 1;
  auto verdict = repeat(forged, 10);
  CHECK(verdict.refuted == "other_batch");
  CHECK_FALSE(verdict.repeated);
  forged = honest;
  forged.batch_size = 2; // half of the work
  CHECK(repeat(forged, 10).refuted == "other_batch");
  forged.seq_len = uint64_t{1} << 40;
  CHECK(repeat(forged, 10).refuted == "other_batch");

  // What was computed with the weights of the first outer step is no work on those of the second.
  auto old = committed(0);
  old.model_hash = honest.model_hash;
  old.data_hash = honest.data_hash;
  CHECK(repeat(old, 10).refuted == "gradient");
}

TEST_CASE_FIXTURE(trained, "what is revealed is held against the proof before anything is run") {
  const auto honest = committed(10);
  const auto proof = proof_of(honest, 10);
  const auto refuted = [&](const work_proof& p, const std::string& revealed) {
    const auto verdict = repeat_proof(p, revealed, how);
    REQUIRE(verdict.ok());
    CHECK_FALSE(verdict->repeated);
    return verdict->refuted;
  };
  auto other = honest;
  other.values[0] += 1;
  CHECK(refuted(proof, encode_preimage(other)) == "preimage");
  CHECK(refuted(proof, "") == "preimage");
  auto changed = proof;
  changed.gradient_commitment = commitment_of("nothing");
  CHECK(refuted(changed, "nothing") == "malformed");
  changed = proof;
  changed.loss_e6 = *proof.loss_e6 - 1;
  CHECK(refuted(changed, encode_preimage(honest)) == "loss");
  changed = proof;
  changed.data_hash.reset();
  CHECK(refuted(changed, encode_preimage(honest)) == "other_batch");
  changed = proof;
  (*changed.model_hash_start)[3] ^= 1;
  CHECK(refuted(changed, encode_preimage(honest)) == "other_weights");
  changed = proof;
  changed.gradient_commitment.reset();
  CHECK(refuted(changed, encode_preimage(honest)) == "preimage");
}

TEST_CASE_FIXTURE(trained, "a condition of the check that is missing is named") {
  const auto honest = committed(10);
  const auto proof = proof_of(honest, 10);
  auto later = proof;
  later.step_begin = 13;
  const auto in_round = refused(later, honest);
  CHECK(in_round.why() == kernels::code::unavailable);
  CHECK(in_round.message().find("3 steps after the outer step") != std::string::npos);

  const auto good = how;
  how.architecture.ffn_dim = 64;
  CHECK(refused(proof, honest).message().find("architecture") != std::string::npos);
  how = good;
  how.tokenizer_hash[0] = how.tokenizer_hash[0] == 'a' ? 'b' : 'a';
  CHECK(refused(proof, honest).message().find("tokenizer") != std::string::npos);
  how = good;

  const auto directory = find_start(how.checkpoints, proof);
  REQUIRE(directory.ok());
  CHECK(*find_start(root.path(), proof) == *directory); // of any wallet
  {
    std::fstream file(*directory + "/tensors.bin", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(1'000);
    file.put('x');
  }
  CHECK(refused(proof, honest).why() == kernels::code::corrupt);
  std::filesystem::remove_all(*directory);
  const auto gone = refused(proof, honest);
  CHECK(gone.why() == kernels::code::unavailable);
  CHECK(gone.message().find(checkpoint_name(10, honest.model_hash)) != std::string::npos);
}

TEST_CASE_FIXTURE(trained, "the weights of another step refute a proof") {
  const auto honest = committed(10);
  const auto proof = proof_of(honest, 10);
  auto first = proof;
  first.step_begin = 0;
  first.model_hash_start = committed(0).model_hash;
  const auto directory = find_start(how.checkpoints, first);
  REQUIRE(directory.ok());
  const auto start = checkpoint_reader::open(*directory);
  REQUIRE(start.ok());
  const auto stage = load_stage(*start, how, 64);
  REQUIRE(stage.ok());
  const auto end = checkpoint_reader::open(*find_start(how.checkpoints, proof));
  REQUIRE(end.ok());
  const auto cursor = text::data_cursor::parse(end->manifest().state.data_cursor);
  REQUIRE(cursor.ok());
  const auto batch = draw_batch(*data, *cursor, 11, 4, 16, 2);
  REQUIRE(batch.ok());
  const auto bytes = encode_preimage(honest);
  const auto lied = spot_check(**stage, *batch, honest.model_hash, proof, bytes, agreement::within_tolerance);
  REQUIRE(lied.ok());
  CHECK(lied->repeated);
  CHECK(lied->refuted == "gradient");
  const auto said = spot_check(**stage, *batch, *first.model_hash_start, proof, bytes, agreement::exact);
  REQUIRE(said.ok());
  CHECK(said->refuted == "other_weights");
  CHECK_FALSE((*stage)->holds_gradient());
}
