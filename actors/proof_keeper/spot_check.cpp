#include "actors/proof_keeper/spot_check.hpp"

#include <algorithm>
#include <cmath>

namespace neuroshard {

namespace {

using kernels::code;
using kernels::result;
using kernels::status;

/// Runs the micro-batches as the trainer does; the mean loss over the labels of the batch.
result<double> accumulate(model::stage& stage, const step_batch& batch) {
  double loss_sum = 0;
  uint32_t index = 0;
  for (const auto& part : batch.parts) {
    model::train_input in;
    in.key = {"spot-check", 1, index++};
    in.sequences = part.rows;
    in.positions_per_sequence = batch.seq;
    in.token_ids = part.ids;
    in.labels = part.labels;
    in.loss_scale =
        static_cast<float>(static_cast<double>(part.label_count) / static_cast<double>(batch.label_count));
    auto out = stage.forward_train(std::move(in)).run();
    if (!out.ok())
      return out.status();
    loss_sum += out->loss * out->label_count;
  }
  return loss_sum / static_cast<double>(batch.label_count);
}

result<gradient_preimage> repeat_step(model::stage& stage, const step_batch& batch,
                                      const kernels::digest& model_hash) {
  const auto loss = accumulate(stage, batch);
  if (!loss.ok())
    return loss.status();
  const auto data_hash = data_hash_of(batch);
  const auto probe = stage.sample_gradient(sampled_draws(data_hash)).run();
  if (!probe.ok())
    return probe.status();
  std::vector<std::pair<std::string, double>> norms;
  const auto units = stage.units();
  for (size_t i = 0; i < units.size(); ++i)
    norms.emplace_back(units[i].name, probe->unit_norms[i]);
  auto made = preimage_of(norms, probe->values, *loss, model_hash, data_hash, batch.rows, batch.seq);
  if (!made)
    return status(code::not_finite, "the repeated step has no finite loss and gradient");
  return std::move(*made);
}

/// Precondition: as many values and units in both.
void measure_distances(const gradient_preimage& committed, const gradient_preimage& repeated,
                       spot_verdict& to) {
  double distance_sq = 0, length_sq = 0;
  for (size_t i = 0; i < repeated.values.size(); ++i) {
    const double there = repeated.values[i], difference = committed.values[i] - there;
    distance_sq += difference * difference;
    length_sq += there * there;
  }
  to.gradient_distance = distance_sq == 0 ? 0 : std::sqrt(distance_sq / length_sq);
  for (size_t i = 0; i < repeated.unit_norms_e6.size(); ++i) {
    const auto there = static_cast<double>(repeated.unit_norms_e6[i].second);
    const double difference = std::abs(static_cast<double>(committed.unit_norms_e6[i].second) - there);
    to.norm_distance = std::max(to.norm_distance, difference == 0 ? 0 : difference / there);
  }
}

} // namespace

std::string read_revealed(const work_proof& proof, std::string_view preimage, gradient_preimage& to) {
  if (!proof.gradient_commitment || commitment_of(preimage) != *proof.gradient_commitment)
    return "preimage";
  auto read = decode_preimage(preimage);
  if (!read)
    return "malformed";
  to = std::move(*read);
  if (!proof.model_hash_start || to.model_hash != *proof.model_hash_start)
    return "other_weights";
  // Batch and length of the proof are the largest of its steps; its first step may have been smaller.
  if (!proof.data_hash || to.data_hash != *proof.data_hash || to.batch_size > proof.batch_size ||
      to.seq_len > proof.seq_len)
    return "other_batch";
  if (!proof.loss_e6 || to.loss_e6 != *proof.loss_e6)
    return "loss";
  return {};
}

result<spot_verdict> spot_check(model::stage& stage, const step_batch& batch,
                                const kernels::digest& model_hash, const work_proof& proof,
                                std::string_view preimage, agreement how) {
  spot_verdict verdict;
  verdict.how = how;
  gradient_preimage committed;
  verdict.refuted = read_revealed(proof, preimage, committed);
  if (verdict.refuted.empty() && committed.model_hash != model_hash)
    verdict.refuted = "other_weights";
  if (verdict.refuted.empty() && committed.data_hash != data_hash_of(batch))
    verdict.refuted = "other_batch";
  if (!verdict.refuted.empty())
    return verdict;
  if (stage.holds_gradient())
    return status(code::invalid_argument, "the stage holds the gradient of another step");
  if (batch.label_count == 0)
    return status(code::invalid_argument, "the batch has no labels");
  const auto repeated = repeat_step(stage, batch, model_hash);
  const auto dropped = stage.discard().run();
  if (!repeated.ok())
    return repeated.status();
  NEUROSHARD_TRY(dropped);
  verdict.repeated = true;
  verdict.loss_committed = static_cast<double>(committed.loss_e6) / 1e6;
  verdict.loss_repeated = static_cast<double>(repeated->loss_e6) / 1e6;
  verdict.refuted = compare_gradients(committed, *repeated, how);
  if (committed.values.size() == repeated->values.size() &&
      committed.unit_norms_e6.size() == repeated->unit_norms_e6.size())
    measure_distances(committed, *repeated, verdict);
  return verdict;
}

} // namespace neuroshard
