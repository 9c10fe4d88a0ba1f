#include "actors/proof_keeper/proof_repeat.hpp"

#include "actors/checkpointer/checkpoint_folder.hpp"

#include <algorithm>
#include <filesystem>

namespace neuroshard {

namespace {

using kernels::code;
using kernels::result;
using kernels::status;

constexpr int64_t copied_at_once = int64_t{4} << 20; ///< elements
constexpr uint64_t batch_positions_max = uint64_t{1} << 24;

status not_here(std::string what) {
  return {code::unavailable, std::move(what)};
}

/// The folder itself, if it has checkpoints in it, and all folders in it.
std::vector<std::string> folders_of(const std::string& checkpoints) {
  std::vector<std::string> all{checkpoints};
  std::error_code error;
  for (std::filesystem::directory_iterator at(checkpoints, error), end; !error && at != end;
       at.increment(error))
    if (at->is_directory(error) && !step_of_name(at->path().filename().string()))
      all.push_back(at->path().string());
  return all;
}

status set_weights(const checkpoint_reader& from, model::stage& stage) {
  std::vector<float> values;
  const std::vector<float> zeros(static_cast<size_t>(copied_at_once));
  for (const auto& unit : stage.units())
    for (const auto& parameter : unit.parameters) {
      const auto* record = from.manifest().find(parameter.name);
      if (record == nullptr || record->shape != parameter.shape || record->type != kernels::dtype::f32)
        return {code::corrupt, "the checkpoint does not hold " + parameter.name + " as this model has it"};
      values.resize(static_cast<size_t>(parameter.count));
      NEUROSHARD_TRY(from.read(*record, std::as_writable_bytes(std::span(values))));
      NEUROSHARD_TRY(stage.write(parameter.name, model::parameter_part::weight, 0, values));
      // Memory is not cleared when it is allocated.
      for (int64_t first = 0; first < parameter.count; first += copied_at_once)
        NEUROSHARD_TRY(stage.write(
            parameter.name, model::parameter_part::gradient, first,
            std::span(zeros).first(static_cast<size_t>(std::min(copied_at_once, parameter.count - first)))));
    }
  return stage.refresh_weights().run();
}

status check_fit(const checkpoint_manifest& found, const work_proof& proof, const repeat_setup& how) {
  if (hash_of_units(found.units) != *proof.model_hash_start || found.state.inner_step != proof.step_begin)
    return {code::corrupt, "the checkpoint is not what its name says"};
  if (model::architecture_id(found.architecture) != model::architecture_id(how.architecture) ||
      model::architecture_id(how.architecture) != proof.architecture_id)
    return not_here("the proof is of architecture " + proof.architecture_id + "; the configuration names " +
                    model::architecture_id(how.architecture));
  if (found.tokenizer_hash != how.tokenizer_hash)
    return not_here("the checkpoint was trained with another tokenizer than the one configured");
  return {};
}

} // namespace

result<std::string> find_start(const std::string& checkpoints, const work_proof& proof) {
  if (proof.label_tokens == 0 || !proof.model_hash_start || !proof.gradient_commitment)
    return not_here("the proof tells of no training: there is no step to repeat");
  const std::string wanted = checkpoint_name(proof.step_begin, *proof.model_hash_start);
  const std::string hash = wanted.substr(wanted.find('-'));
  std::optional<uint64_t> other_step;
  for (const auto& folder : folders_of(checkpoints))
    for (const auto& entry : list_folder(folder)) {
      if (entry.id == wanted)
        return folder + "/" + entry.id;
      if (entry.id.ends_with(hash))
        other_step = entry.inner_step;
    }
  if (other_step && *other_step < proof.step_begin)
    return not_here("its first step is number " + std::to_string(proof.step_begin + 1) + ", " +
                    std::to_string(proof.step_begin - *other_step) +
                    " steps after the outer step whose weights it names: only a proof that begins with the "
                    "weights of an outer step can be repeated");
  return not_here("the checkpoint " + wanted +
                  ", with the weights that the first step began with, is not in " + checkpoints +
                  " (it was pruned, or the proof does not begin at an outer step)");
}

result<std::unique_ptr<model::stage>> load_stage(const checkpoint_reader& from, const repeat_setup& how,
                                                 int64_t tokens_max) {
  model::stage_options options;
  options.layer_end = how.architecture.num_layers;
  options.embed = true;
  options.head = true;
  options.compute = how.compute;
  options.train_tokens_max = tokens_max;
  options.train_slots = 1;
  auto stage = model::stage::make(how.device, how.architecture, options);
  if (!stage.ok())
    return stage.status();
  NEUROSHARD_TRY((*stage)->set_valid_vocab(how.vocab_size));
  NEUROSHARD_TRY(set_weights(from, **stage));
  return std::move(*stage);
}

result<spot_verdict> repeat_proof(const work_proof& proof, std::string_view preimage,
                                  const repeat_setup& how) {
  gradient_preimage committed;
  spot_verdict verdict;
  verdict.how = how.how;
  verdict.refuted = read_revealed(proof, preimage, committed);
  if (!verdict.refuted.empty())
    return verdict;
  if (committed.batch_size == 0 || committed.seq_len == 0 ||
      committed.seq_len > static_cast<uint64_t>(how.architecture.max_seq_len) ||
      committed.batch_size > batch_positions_max / committed.seq_len) {
    verdict.refuted = "other_batch"; // no step of this model has such a batch
    return verdict;
  }
  const auto directory = find_start(how.checkpoints, proof);
  if (!directory.ok())
    return directory.status();
  const auto start = checkpoint_reader::open(*directory);
  if (!start.ok())
    return start.status();
  NEUROSHARD_TRY(check_fit(start->manifest(), proof, how));

  auto cursor = text::data_cursor::parse(start->manifest().state.data_cursor);
  if (!cursor.ok())
    return cursor.status();
  NEUROSHARD_TRY(how.data->ready(*cursor));
  const auto seq = static_cast<uint32_t>(committed.seq_len);
  const auto size = static_cast<uint32_t>(committed.batch_size);
  const uint32_t rows = rows_per_part(size, how.microbatches, seq, how.positions_max);
  const auto batch = draw_batch(*how.data, *cursor, proof.step_begin + 1, size, seq, rows);
  if (!batch.ok())
    return batch.status();

  auto stage = load_stage(*start, how, int64_t{rows} * seq);
  if (!stage.ok())
    return stage.status();
  return spot_check(**stage, *batch, *proof.model_hash_start, proof, preimage, how.how);
}

} // namespace neuroshard
