#include "gateway/node/check_proof.hpp"

#include "actors/identity/keys.hpp"
#include "actors/identity/wallet_file.hpp"
#include "actors/ledger/account_book.hpp"
#include "actors/proof_keeper/kept_proof.hpp"
#include "actors/proof_keeper/proof_repeat.hpp"
#include "gateway/config/thread_budget.hpp"
#include "gateway/node/economics.hpp"
#include "gateway/node/model_group.hpp"
#include "gateway/node/start_identity.hpp"
#include "kernels/text/dataset_mirror.hpp"
#include "kernels/text/shards.hpp"
#if NEUROSHARD_HAVE_CPU_BACKEND
#include "kernels/cpu/cpu_backend.hpp"
#endif

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <ostream>

namespace neuroshard {

namespace {

/// What the node draws its batches from, opened without writing anything.
struct drawn_from {
  text::tokenizer tokens;
  std::shared_ptr<const text::data_loader> loader;
};

start_error cannot_check(std::string why) {
  return {exit_code::data_directory, std::move(why)};
}

start_result<drawn_from> open_drawn_from(const node_config& c, const data_paths& paths,
                                         const std::string& node_id) {
  if (text::is_mirror_url(c.data.shards))
    return cannot_check("data.shards is a mirror: what a step drew from it depends on which shards were here "
                        "then, so its batch cannot be drawn again");
  if (c.data.shards.empty() && c.data.corpus.empty())
    return cannot_check("data.corpus and data.shards are empty: there is nothing to draw the batch from");
  drawn_from made;
  auto tokens = text::tokenizer::load(c.data.tokenizer);
  if (!tokens.ok())
    return cannot_check(tokens.status().message());
  made.tokens = std::move(*tokens);
  text::shard_set::options how;
  how.vocab_size = made.tokens.vocab_size();
  how.tokenizer_hash = kernels::to_hex(made.tokens.hash());
  how.held_out = c.data.held_out;
  how.leave_out_corrupt = !c.data.shards.empty(); // as the node opens them
  auto shards = text::shard_set::open(c.data.shards.empty() ? paths.data_cache() : c.data.shards, how);
  if (!shards.ok())
    return cannot_check(shards.status().message());
  auto loader = text::data_loader::make(std::make_shared<const text::shard_set>(std::move(*shards)),
                                        {node_id, static_cast<uint64_t>(c.data.max_storage_mb) * 1'000'000});
  if (!loader.ok())
    return cannot_check(loader.status().message());
  made.loader = std::make_shared<const text::data_loader>(std::move(*loader));
  return made;
}

const char* explain(const std::string& reason) {
  if (reason == "preimage")
    return "the preimage that is kept is not what the proof committed to";
  if (reason == "malformed")
    return "what was committed to is no preimage of a gradient";
  if (reason == "other_weights")
    return "it was committed to with other weights";
  if (reason == "other_batch")
    return "its first step was not of the batch that this node draws for it from its present data";
  if (reason == "other_units")
    return "the gradient was of another model";
  if (reason == "loss")
    return "the loss is another";
  if (reason == "gradient")
    return "the gradient is another";
  if (reason == "gradient_norm")
    return "the norm of a unit's gradient is another";
  return "the values are not equal, bit for bit (they are only with the training.microbatches, model.dtype "
         "and kind of processor of then)";
}

void print_found(std::ostream& out, const std::string& id, const kept_proof& found) {
  const auto& proof = found.proof;
  out << "proof:      " << id
      << "\nrecorded:   " << (found.accepted ? "accepted" : "refused: " + found.reason)
      << (found.refuted.empty() ? "" : ", since then refuted: " + found.refuted)
      << fmt::format("\ntype:       {}\nnode:       {}\nsteps:      {} to {}, {} label tokens\n",
                     to_string(type_of(proof)), proof.node_id, proof.step_begin, proof.step_end,
                     proof.label_tokens);
}

void print_verdict(std::ostream& out, const spot_verdict& verdict) {
  if (verdict.repeated) {
    const double loss_distance =
        std::abs(verdict.loss_committed - verdict.loss_repeated) / std::max(verdict.loss_repeated, 1e-12);
    out << fmt::format("compared:   {}\n", verdict.how == agreement::exact
                                               ? "bit for bit (f32 on a CPU)"
                                               : "within 5 % of the gradient's length and 1 % of the loss")
        << fmt::format("gradient:   {:.3g} relative distance of {} sampled values, {:.3g} of the norms\n",
                       verdict.gradient_distance, gradient_samples, verdict.norm_distance)
        << fmt::format("loss:       {:.6f} committed, {:.6f} repeated, {:.3g} relative difference\n",
                       verdict.loss_committed, verdict.loss_repeated, loss_distance);
  }
  if (verdict.refuted.empty())
    out << "The proof agrees.\n";
  else
    out << "The proof is REFUTED (" << verdict.refuted << "): " << explain(verdict.refuted) << ".\n";
}

start_result<spot_verdict> repeat(const kept_proof& found, const node_config& c, const data_paths& paths) {
  if (found.proof.label_tokens == 0)
    return cannot_check("the proof tells of no training: there is no step to repeat");
  if (!found.preimage)
    return cannot_check("the preimage of its gradient commitment is not kept (24 hours have passed)");
  auto shape = shape_of(c);
  if (!shape)
    return shape.error();
  auto from = open_drawn_from(c, paths, found.proof.node_id);
  if (!from)
    return from.error();
#if NEUROSHARD_HAVE_CPU_BACKEND
  kernels::register_cpu_backend();
#endif
  auto device = open_device(c, share_threads(c, read_machine_facts(paths.root)));
  if (!device)
    return device.error();
  repeat_setup how;
  how.checkpoints = paths.checkpoints();
  how.architecture = *shape;
  how.device = *device;
  how.compute = compute_type(c, **device);
  const bool exact = how.compute == kernels::dtype::f32 && (*device)->info().host_visible;
  how.how = exact ? agreement::exact : agreement::within_tolerance;
  how.data = from->loader.get();
  how.vocab_size = from->tokens.vocab_size();
  how.tokenizer_hash = kernels::to_hex(from->tokens.hash());
  how.microbatches = static_cast<uint32_t>(c.training.microbatches);
  how.positions_max = microbatch_positions(c);
  auto verdict = repeat_proof(found.proof, *found.preimage, how);
  if (verdict.ok())
    return std::move(*verdict);
  const auto why = verdict.status().why();
  const bool missing =
      why == kernels::code::unavailable || why == kernels::code::corrupt || why == kernels::code::io;
  return start_error{missing ? exit_code::data_directory : exit_code::fatal, verdict.status().message()};
}

/// Writes down in the book that a proof is refuted. The caller holds the data directory.
std::optional<start_error> void_proof(const std::string& id, const kept_proof& found,
                                      const std::string& refuted_by, const loaded_config& loaded,
                                      const data_paths& paths, std::ostream& out) {
  const auto random = system_random();
  const auto time = system_time();
  if (!loaded.token)
    if (auto wallet = read_wallet_file(paths.wallet()); !wallet)
      return cannot_check(problem_of(wallet.error()).message);
  auto who = start_identity(loaded, paths, false, *random, time->unix_us() / 1000);
  if (!who)
    return who.error();
  const auto params = economics_from(loaded.config);
  if (!params)
    return params.error();
  auto book = open_book({paths.ledger(), loaded.config.network, *params, who->identity, time});
  if (!book)
    return cannot_check(problem_of(book.error()).message);
  const auto voided = (*book)->apply(void_reward{id, refuted_by});
  if (!voided)
    return cannot_check(problem_of(voided.error()).message);
  const auto offence = (*book)->apply(record_offence{offence_class::failed_spot_check, found.proof.node_id,
                                                     found.proof.wallet, found.signed_bytes});
  if (!offence)
    return cannot_check(problem_of(offence.error()).message);
  if (auto failed = (*book)->close())
    return cannot_check(problem_of(failed).message);
  out << (voided->known_before ? "It was voided before: " : "Voided: ") << to_decimal(voided->burned)
      << " NEURO of its reward burned, " << to_decimal(voided->matured) << " had matured; slashed "
      << to_decimal(offence->slashed) << ".\n";
  return std::nullopt;
}

} // namespace

int run_check_proof(std::span<const std::string> args, const loaded_config& loaded, const data_paths& paths,
                    std::ostream& out, std::ostream& err) {
  const bool voids = args.size() == 2 && args[1] == "--void";
  kernels::digest id{};
  if ((args.size() != 1 && !voids) || !from_hex(args[0], id.data(), id.size())) {
    err << "usage: neuroshard ledger check-proof ID [--void], a proof id of 64 hex digits\n";
    return static_cast<int>(exit_code::bad_configuration);
  }
  const auto found = find_kept_proof(paths.ledger(), id);
  if (!found) {
    err << problem_of(found.error()).message << '\n';
    return static_cast<int>(exit_code::data_directory);
  }
  const std::string name = kernels::to_hex(id);
  std::optional<data_dir> held; // Before the step is repeated: a node that runs makes it be in vain.
  if (voids) {
    auto opened = data_dir::open(paths.root);
    if (!opened) {
      err << "Nothing is voided: " << opened.error().line << ".\n";
      return static_cast<int>(opened.error().code);
    }
    held.emplace(std::move(*opened));
  }
  print_found(out, name, *found);
  const auto verdict = repeat(*found, loaded.config, paths);
  if (!verdict) {
    err << "The proof cannot be checked: " << verdict.error().line << ".\n";
    return static_cast<int>(verdict.error().code);
  }
  print_verdict(out, *verdict);
  if (verdict->refuted.empty())
    return 0;
  if (!voids) {
    if (found->accepted && found->refuted.empty())
      out << "The book still counts it as accepted. With the node stopped, --void has it rejected and burns "
             "what "
             "is pending of its reward.\n";
    return 1;
  }
  if (const auto failed = void_proof(name, *found, verdict->refuted, loaded, paths, out)) {
    err << "The proof is not voided: " << failed->line << ".\n";
    return static_cast<int>(failed->code);
  }
  return 1;
}

} // namespace neuroshard
