#include "gateway/node/node.hpp"

#include "actors/common/log.hpp"
#include "actors/identity/keys.hpp"
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/ledger.hpp"
#include "actors/ledger/ledger_reader.hpp"
#include "actors/supervisor/supervisor.hpp"
#include "gateway/config/console.hpp"
#include "gateway/config/data_dir.hpp"
#include "gateway/config/logging.hpp"
#include "gateway/dht/dht_node.hpp"
#include "gateway/grpc/credentials.hpp"
#include "gateway/grpc/server.hpp"
#include "gateway/http/server.hpp"
#include "gateway/node/actor_setup.hpp"
#include "gateway/node/base_groups.hpp"
#include "gateway/node/checkpoint_groups.hpp"
#include "gateway/node/console_feed.hpp"
#include "gateway/node/data_preparation.hpp"
#include "gateway/node/description.hpp"
#include "gateway/node/economics.hpp"
#include "gateway/node/joining.hpp"
#include "gateway/node/live_settings.hpp"
#include "gateway/node/main_loop.hpp"
#include "gateway/node/model_group.hpp"
#include "gateway/node/start_identity.hpp"
#if NEUROSHARD_HAVE_CPU_BACKEND
#include "kernels/cpu/cpu_backend.hpp"
#endif

#include <caf/actor_system.hpp>
#include <caf/scoped_actor.hpp>
#include <caf/send.hpp>
#include <fmt/format.h>

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <iostream>
#include <thread>

namespace neuroshard {

namespace {

constexpr const char* software = "neuroshard " NEUROSHARD_VERSION;

/// A node from its start to its end. Members are in the order in which they are made.
class node {
public:
  node(command_line given, loaded_config loaded, std::optional<daemon_child> daemon)
      : given_(std::move(given)), loaded_(std::move(loaded)), daemon_(std::move(daemon)) {}

  int run() {
    if (auto why = start()) {
      if (daemon_)
        daemon_->failed(*why);
      show_words(); // of a wallet that is on the disk already
      if (console_)
        console_->finish();
      // The line below is for people; the log's own copy of it goes to the file alone, except for a daemon,
      // which has no other.
      if (log_ && daemon_)
        log::error("node", "start-failed why=\"{}\"", why->line);
      else if (log_)
        log::info("node", "start-failed why=\"{}\"", why->line);
      shut_down();
      std::cerr << "neuroshard: " << why->line << '\n';
      return static_cast<int>(why->code);
    }
    loop_.run([this](int signal) { on_signal(signal); }, [this] { on_tick(); }, 200);
    shut_down();
    return exit_status_;
  }
  /// Whether the program is to be started again: the node has come to its end for that alone.
  bool again() const { return again_ && exit_status_ == 0; }

private:
  std::optional<start_error> start();
  std::optional<start_error> start_ledger(const economics_params& params);
  std::optional<start_error> start_http();
  std::optional<start_error> start_grpc();
  void start_dht();
  std::shared_ptr<const base_plan> plan_base();
  rpc::link_options link_to_peers() const;
  start_result<done> start_group_now(start_group plan);
  void announce();
  void show_words();
  void prepare_data();
  void data_ready(std::shared_ptr<const text::dataset> data, std::shared_ptr<const text::tokenizer> tokens);
  void data_failed(const std::string& why);
  void placed(const placement_changed& what);
  void start_anew(const std::string& why);
  void start_model();
  void on_signal(int signal);
  void on_tick();
  void begin_stop(int signal);
  void shut_down();
  [[noreturn]] void leave();
  http::node_services services();

  command_line given_;
  loaded_config loaded_;
  std::optional<daemon_child> daemon_;
  main_loop loop_;
  time_source_ptr time_ = system_time();
  random_source_ptr random_ = system_random();
  counters_ptr counters_ = std::make_shared<node_counters>();
  machine_facts machine_;
  thread_budget threads_;
  std::shared_ptr<console> console_;
  std::optional<data_dir> directory_;
  std::optional<logging> log_;
  started_identity who_;
  kernels::device_ptr device_;
  model::architecture shape_;
  std::shared_ptr<live_settings> settings_;
  ledger_options book_options_;
  std::unique_ptr<account_book> book_;
  std::shared_ptr<ledger_reader> reader_;
  snapshot_board_ptr board_;
  held_board_ptr held_ = std::make_shared<held_board>();
  std::shared_ptr<const model_plan> model_plan_; ///< nothing until tokenizer and data are there
  bool model_started_ = false;
  std::unique_ptr<actor_setup> actor_setup_;
  std::unique_ptr<caf::actor_system> system_;
  node_actors fronts_;
  std::unique_ptr<joining> joining_;
  supervisor_actor supervisor_;
  std::optional<rpc::node_certificate> certificate_; ///< nothing: grpc.insecure
  std::shared_ptr<rpc::caller_table> callers_ = std::make_shared<rpc::caller_table>();
  std::unique_ptr<rpc::server> grpc_;
  std::shared_ptr<dht_node> dht_; ///< null: off
  std::unique_ptr<http::server> server_;
  std::unique_ptr<console_feed> feed_;
  std::atomic<bool> cancel_preparation_{false};
  std::thread preparation_;
  std::thread stopping_;
  int stop_signal_ = 0;
  int64_t stop_us_ = 0;
  int exit_status_ = 0;
  bool again_ = false; ///< it ends to be started again
  bool hangs_ = false; ///< the stop was not finished in time
  bool shut_ = false;
};

// --------------------------------------------------------------------------------------------------- start

std::optional<start_error> node::start() {
  const auto& c = loaded_.config;
  machine_ = read_machine_facts(loaded_.data_dir);
  threads_ = share_threads(c, machine_);

  auto directory = data_dir::open(loaded_.data_dir);
  if (!directory)
    return directory.error();
  directory_.emplace(std::move(*directory));
  const auto& paths = directory_->paths();

  const bool background = daemon_.has_value();
  const bool terminal = !background && ::isatty(STDOUT_FILENO) == 1;
  console_ = std::make_shared<console>(console::for_stdout(given_.quiet || background));
  log_options log_to;
  log_to.file = paths.log();
  log_to.level = c.log_level;
  log_to.to_stderr = !background;
  log_to.warnings_only_on_stderr = !background;
  if (terminal)
    log_to.to_console = [out = console_](std::string_view line) { out->line(line); };
  auto log = logging::start(log_to);
  if (!log)
    return log.error();
  log_.emplace(std::move(*log));
  log::info("node", "starting version={} data_dir={} pid={}", NEUROSHARD_VERSION, paths.root, ::getpid());
  for (const auto& note : loaded_.notes)
    log::warn("config", "{}", note);

  if (c.training.enabled && takes_layers(c) && c.data.corpus.empty() && c.data.shards.empty())
    return start_error{exit_code::bad_configuration, "data.corpus: nothing to train on; give a text file or "
                                                     "directory (--set data.corpus=PATH), or --no-training"};
  if (!c.data.corpus.empty() && c.data.shards.empty() && c.training.enabled &&
      ::access(c.data.corpus.c_str(), R_OK) != 0)
    return start_error{exit_code::bad_configuration, "data.corpus = " + c.data.corpus + ": cannot be read"};

  const auto params = economics_from(c);
  if (!params)
    return params.error();
  auto shape = shape_of(c);
  if (!shape)
    return shape.error();
  shape_ = *shape;
#if NEUROSHARD_HAVE_CPU_BACKEND
  kernels::register_cpu_backend();
#endif
  auto device = open_device(c, threads_);
  if (!device)
    return device.error();
  device_ = *device;

  auto who = start_identity(loaded_, paths, terminal, *random_, time_->unix_us() / 1000);
  if (!who)
    return who.error();
  who_ = std::move(*who);

  if (auto why = start_ledger(*params))
    return why;
  rpc::allow_tls_13_only();
  rpc::log_to_node_log();
  if (!c.grpc.insecure) {
    auto certificate = rpc::load_or_make_certificate(paths.tls());
    if (!certificate)
      return start_error{exit_code::data_directory, problem_of(certificate.error()).message};
    certificate_ = std::move(*certificate);
  }

  config_json stored;
  if (auto held = read_config_json(paths.config_json()); held && *held)
    stored = **held;
  stored.url = api_url(c);
  stored.token = std::string(who_.token.canonical.view());
  if (auto written = write_config_json(paths.config_json(), stored); !written)
    return written.error();
  directory_->sign(stored.url);
  settings_ = std::make_shared<live_settings>(c, machine_, paths.config_json(), stored);

  board_ =
      std::make_shared<snapshot_board>(first_snapshot(*who_.identity, c, shape_, *device_, time_->unix_us()));

  actor_setup_ = std::make_unique<actor_setup>(threads_.actors);
  system_ = std::make_unique<caf::actor_system>(*actor_setup_);
  fronts_ = make_fronts(*system_);
  supervisor_ = system_->spawn(supervisor, fronts_, time_, counters_);
  joining_ = std::make_unique<joining>(
      joining::parts_of{system_.get(), fronts_, settings_, paths.root, shape_, time_,
                        [this](std::function<void()> work) { loop_.post(std::move(work)); },
                        [this](const std::string& why) { start_anew(why); }});

  start_dht();
  for (auto& group : base_groups(plan_base(), std::move(book_), fronts_))
    if (auto started = start_group_now(std::move(group)); !started)
      return started.error();

  if (auto why = start_grpc())
    return why;
  if (auto why = start_http())
    return why;
  settings_->connect({fronts_, &*log_, server_.get()});
  feed_ = std::make_unique<console_feed>(console_, board_, fronts_.scheduler, time_);
  announce();
  if (takes_layers(c))
    prepare_data();
  else // there is nothing to wait for
    caf::anon_send(fronts_.telemetry, state_changed{node_state::running});
  return {};
}

std::optional<start_error> node::start_ledger(const economics_params& params) {
  const auto& paths = directory_->paths();
  book_options_ = {paths.ledger(), loaded_.config.network, params, who_.identity, time_};
  auto opened = open_book(book_options_);
  if (!opened)
    return start_error{exit_code::data_directory, paths.ledger() + ": " + problem_of(opened.error()).message};
  book_ = std::move(*opened);
  auto reader = ledger_reader::open({paths.ledger(), who_.identity->address(), time_, params});
  if (!reader)
    return start_error{exit_code::data_directory, paths.ledger() + ": " + problem_of(reader.error()).message};
  reader_ = std::move(*reader);
  return {};
}

std::shared_ptr<const base_plan> node::plan_base() {
  auto plan = std::make_shared<base_plan>();
  plan->config = [settings = settings_] { return settings->current(); };
  plan->network_parameters = [settings = settings_] { return settings->network_parameters(); };
  plan->paths = directory_->paths();
  plan->identity = who_.identity;
  plan->shape = shape_;
  plan->self = describe(*who_.identity, loaded_.config, shape_, *device_);
  plan->self.economics_hash = params_hash(book_options_.params);
  if (certificate_)
    plan->self.tls_cert_sha256 = certificate_->sha256;
  plan->link = link_to_peers();
  plan->directory = dht_;
  plan->book = book_options_;
  plan->reader = reader_;
  plan->board = board_;
  plan->held = held_;
  plan->placed = [this](const placement_changed& what) { loop_.post([this, what] { placed(what); }); };
  plan->bf16 = compute_type(loaded_.config, *device_) == kernels::dtype::bf16;
  plan->time = time_;
  plan->random = random_;
  plan->counters = counters_;
  return plan;
}

rpc::link_options node::link_to_peers() const {
  return {certificate_, loaded_.config.network, who_.identity->node_id(), callers_, time_, random_};
}

start_result<done> node::start_group_now(start_group plan) {
  caf::scoped_actor self{*system_};
  start_result<done> outcome = done{};
  const std::string name = plan.name;
  self->request(supervisor_, std::chrono::seconds(30), std::move(plan))
      .receive([] {},
               [&](const caf::error& why) {
                 outcome = start_error{exit_code::fatal, name + ": " + problem_of(why).message};
               });
  return outcome;
}

http::node_services node::services() {
  http::node_services s;
  s.system = system_.get();
  s.board = board_;
  s.counters = counters_;
  s.clock = time_;
  s.random = random_;
  s.rate_limiter.set(fronts_.limiter);
  s.scheduler.set(fronts_.scheduler);
  s.ledger.set(fronts_.ledger);
  s.book = reader_;
  s.tokens.push_back({who_.identity->token_digest(), http::all_scopes});
  for (const auto& rule : loaded_.config.api.tokens) {
    http::known_token token;
    token.scopes = 0;
    token.digest = *digest_from_hex(rule.sha256); // checked when it was read
    for (const auto& scope : rule.scopes)
      token.scopes |= http::scope_bit(scope);
    s.tokens.push_back(token);
  }
  s.config = [settings = settings_] { return settings->current(); };
  s.patch_config = [this](patch_body body, http::patch_reply reply) {
    loop_.post([this, body = std::move(body), reply = std::move(reply)] { reply(settings_->patch(body)); });
  };
  return s;
}

std::optional<start_error> node::start_http() {
  const auto& c = loaded_.config;
  http::server_settings how;
  how.host = c.http_host;
  how.port = static_cast<uint16_t>(c.port);
  how.threads = static_cast<size_t>(threads_.http);
  how.allow_plain_http = c.api.allow_plain_http;
  how.trusted_proxies = c.api.trusted_proxies;
  how.cors_origins = c.api.cors_origins;
  how.tls_cert = c.api.tls_cert;
  how.tls_key = c.api.tls_key;
  how.rates = limits_of(c);
  how.access_log = c.log.access;
  how.inference_timeout_s = c.inference.timeout_s;
  server_ = std::make_unique<http::server>(std::move(how), services());
  if (auto why = server_->start()) {
    const bool tls = code_of(why) == errc::invalid_request;
    return start_error{tls ? exit_code::bad_configuration : exit_code::bind_failure,
                       (tls ? std::string{} : "port = " + std::to_string(c.port) + ": ") +
                           problem_of(why).message};
  }
  if (!http_is_loopback(c) && c.api.tls_cert.empty() && !c.api.allow_plain_http)
    log::warn("http",
              "insecure-transport host={} hint=\"scopes wallet and admin are withheld; set api.tls.cert and "
              "api.tls.key\"",
              c.http_host);
  return {};
}

std::optional<start_error> node::start_grpc() {
  const auto& c = loaded_.config;
  auto parts = std::make_unique<rpc::service_parts>(*system_, fronts_.peers, callers_, c.network,
                                                    c.grpc.insecure, counters_, time_, fronts_.relay);
  parts->exchanger = fronts_.exchanger;
  parts->checkpoints = fronts_.checkpoint_server;
  parts->uploads = fronts_.checkpoint_receiver;
  auto server =
      rpc::server::start({c.grpc_host, static_cast<uint16_t>(grpc_port(c)), certificate_}, std::move(parts));
  if (!server)
    return start_error{exit_code::bind_failure,
                       "port = " + std::to_string(c.port) +
                           ": for peers (gRPC, port + 1000): " + problem_of(server.error()).message};
  grpc_ = std::move(*server);
  log::info("node", "peers-listening address={}:{} insecure={}", c.grpc_host, grpc_->port(), c.grpc.insecure);
  return {};
}

/// Without it a node finds others through its seeds, so a port that is in use ends nothing.
void node::start_dht() {
  const auto& c = loaded_.config;
  const auto port = dht_port(c);
  if (port == 0) {
    if (c.dht.enabled)
      log::warn("dht", "off why=\"port + 2000 is above 65535; set dht.port\"");
    return;
  }
  dht_options how;
  how.host = c.grpc_host;
  how.port = static_cast<uint16_t>(port);
  how.network = c.network;
  how.found = [to = fronts_.peers](std::string record) {
    caf::anon_send(to, found_record{std::move(record)});
  };
  how.seen_as = [to = fronts_.peers](std::string host) {
    caf::anon_send(to, seen_in_directory{std::move(host)});
  };
  auto started = dht_node::start(std::move(how));
  if (!started) {
    log::warn("dht", "off why=\"{}\"", problem_of(started.error()).message);
    return;
  }
  dht_ = std::move(*started);
  log::info("dht", "listening address={}:{}", c.grpc_host, port);
}

void node::announce() {
  const auto& c = loaded_.config;
  const auto& paths = directory_->paths();
  console_banner banner;
  banner.version = NEUROSHARD_VERSION;
  banner.node_id = who_.identity->node_id();
  banner.address = who_.identity->address();
  banner.url = api_url(c);
  banner.data_dir = paths.root;
  banner.config_json = paths.config_json();
  banner.wallet_file = who_.wallet_file;
  banner.device = fmt::format("{}, {} threads", device_->info().name, threads_.compute);
  banner.model = fmt::format("{}, {:.1f} M parameters, {}", board_->read()->identity.architecture_name,
                             static_cast<double>(shape_.parameters()) / 1e6,
                             compute_type(c, *device_) == kernels::dtype::bf16 ? "bf16" : "f32");
  banner.corpus = c.data.shards.empty() ? c.data.corpus : text::shown_url(c.data.shards);
  banner.log_file = paths.log();
  banner.training = c.training.enabled && takes_layers(c);
  banner.tls = !c.api.tls_cert.empty();
  console_->block(render_banner(banner));
  show_words();
  if (!who_.words_file.empty())
    log::warn("identity",
              "new-wallet words={} hint=\"move this file to a safe place; it is the only backup\"",
              who_.words_file);
  log::info("node", "listening url={} node_id={} address={}", banner.url, banner.node_id, banner.address);
  if (daemon_) {
    if (auto written = write_pid_file(paths); !written)
      log::warn("node", "no-pid-file why=\"{}\"", written.error().line);
    daemon_->ready(fmt::format("neuroshard runs in the background, pid {}, {} (log: {})", ::getpid(),
                               banner.url, paths.log()));
  }
}

/// Of a wallet made now, on a terminal: once.
void node::show_words() {
  if (who_.words.empty())
    return;
  console_->block(render_words(who_.words.view()));
  who_.words = {};
}

// ---------------------------------------------------------------------------------------------- data, model

void node::prepare_data() {
  preparation_ = std::thread([this] {
    const auto& paths = directory_->paths();
    const data_places where{paths.data_cache(),
                            paths.checkpoints(who_.identity->wallet_id(), loaded_.config.instance), software};
    text::progress watch;
    watch.cancel = &cancel_preparation_;
    watch.report = [this](std::string_view phase, double fraction) {
      loop_.post([this, phase = std::string(phase), fraction] { feed_->preparing(phase, fraction); });
    };
    auto made = prepare_node_data(loaded_.config, shape_, where, watch);
    if (!made)
      return loop_.post([this, why = made.status().message()] { data_failed(why); });
    loop_.post([this, data = made->data, tokens = made->tokens] { data_ready(data, tokens); });
  });
}

void node::data_failed(const std::string& why) {
  if (stop_signal_ != 0)
    return;
  log::error("data", "not-ready why=\"{}\"", why);
  caf::anon_send(fronts_.telemetry, health_changed{"model", "error", why});
  caf::anon_send(fronts_.telemetry, state_changed{node_state::error});
}

void node::data_ready(std::shared_ptr<const text::dataset> data,
                      std::shared_ptr<const text::tokenizer> tokens) {
  if (stop_signal_ != 0)
    return;
  auto plan = std::make_shared<model_plan>();
  plan->config = [settings = settings_] { return settings->current(); };
  plan->threads = threads_;
  plan->paths = directory_->paths();
  plan->identity = who_.identity;
  plan->device = device_;
  plan->shape = shape_;
  plan->held = held_;
  plan->board = board_;
  plan->data = std::move(data);
  plan->tokens = std::move(tokens);
  plan->software = software;
  plan->training_session = random_hex(*random_, 16);
  plan->time = time_;
  plan->random = random_;
  plan->counters = counters_;
  plan->supervisor = supervisor_;
  joining_->tokenizer_ready(*plan->tokens, loaded_.config);
  model_plan_ = std::move(plan);
  for (auto& group : checkpoint_groups(model_plan_, link_to_peers(), fronts_))
    caf::anon_send(supervisor_, std::move(group));
  start_model();
}

/// Once it is known what is to be held, and with what.
void node::start_model() {
  if (model_started_ || !model_plan_ || !held_->read())
    return;
  model_started_ = true;
  caf::anon_send(supervisor_, model_group(model_plan_, fronts_));
}

/// Another part of the model is to be held: training comes to a step boundary and a checkpoint, and the
/// model's actors are made anew.
void node::placed(const placement_changed& what) {
  if (stop_signal_ != 0 || !takes_layers(loaded_.config))
    return;
  const auto joined = joining_->heard(what);
  if (joined == joining::verdict::stays_out)
    return;
  held_range range{what.layer_begin, what.layer_end, what.embed, what.head};
  const auto whole = static_cast<uint32_t>(shape_.num_layers);
  // Alone a node does what it can with the memory it has: there is nobody to share with.
  if (board_->read()->peers->empty() && loaded_.config.peers.max_layers == 0)
    range = {0, whole, true, true};
  if (range.empty()) {
    log::info("node", "no-layers map={}", what.map_version);
    return;
  }
  if (held_->assign(range))
    log::info("node", "holds layers={}-{} embed={} head={} map={}", range.begin, range.end, range.embed,
              range.head, what.map_version);
  else if (joined != joining::verdict::other_parameters)
    return;
  if (!model_started_)
    return start_model();
  caf::anon_send(supervisor_, renew_group{"model"});
}

/// Another model than this process can hold.
void node::start_anew(const std::string& why) {
  if (stop_signal_ != 0)
    return;
  console_->line(why + ": writing a checkpoint and starting again with it");
  again_ = true;
  begin_stop(SIGTERM);
}

// --------------------------------------------------------------------------------------------------- stop

void node::on_tick() {
  feed_->tick(loaded_.config.training.decay_steps);
  joining_->tick();
}

void node::on_signal(int signal) {
  if (signal == SIGHUP) {
    log::info("node", "reloading");
    if (auto opened = log_->reopen(); !opened)
      log::warn("node", "log-not-reopened why=\"{}\"", opened.error().line);
    settings_->reload(load_config(given_));
    return;
  }
  if (stop_signal_ == 0) {
    log::info("node", "stopping signal={}", signal);
    console_->line("stopping: finishing what is in hand and writing a checkpoint (again to stop at once)");
    return begin_stop(signal);
  }
  if (std::exchange(again_, false))
    return; // it is coming down already
  // One request to stop may come as two signals: to the process and to its group.
  if (time_->steady_us() - stop_us_ < 500'000)
    return;
  // A second signal: nothing is waited for but the book.
  log::warn("node", "stopping-at-once signal={}", signal);
  caf::scoped_actor self{*system_};
  self->request(fronts_.ledger, std::chrono::seconds(2), drain_atom_v)
      .receive([] {}, [](const caf::error&) {});
  console_->finish();
  log_->flush();
  std::_Exit(128 + signal);
}

void node::begin_stop(int signal) {
  stop_signal_ = signal;
  stop_us_ = time_->steady_us();
  cancel_preparation_ = true;
  server_->drain();
  grpc_->drain();
  stopping_ = std::thread([this] {
    {
      caf::scoped_actor self{*system_};
      self->request(supervisor_, std::chrono::seconds(28), stop_node{})
          .receive([] {},
                   [this](const caf::error& why) {
                     log::error("node",
                                "unclean-stop why=\"{}; leaving without it, the next start goes on from "
                                "the last checkpoint\"",
                                problem_of(why).message);
                     hangs_ = true;
                     exit_status_ = static_cast<int>(exit_code::fatal);
                   });
    }
    loop_.post([this] { loop_.end(); });
  });
}

/// Ends the process with threads that do not end: the supervisor has closed the ledger by now, or the ledger
/// is what hangs.
void node::leave() {
  server_->stop(500);
  grpc_->stop(0);
  console_->finish();
  if (daemon_)
    remove_pid_file(directory_->paths());
  log_->flush();
  std::_Exit(exit_status_);
}

void node::shut_down() {
  if (std::exchange(shut_, true))
    return;
  cancel_preparation_ = true;
  if (stopping_.joinable())
    stopping_.join();
  if (hangs_)
    leave();
  if (preparation_.joinable())
    preparation_.join();
  if (system_ && stop_signal_ == 0) {
    caf::scoped_actor self{*system_};
    self->request(supervisor_, std::chrono::seconds(10), stop_node{})
        .receive([] {}, [](const caf::error&) {});
  }
  if (server_)
    server_->stop(2000);
  server_.reset();
  grpc_.reset();
  if (dht_)
    dht_->stop();
  supervisor_ = supervisor_actor{};
  joining_.reset();
  fronts_ = node_actors{};
  feed_.reset();
  // It waits for every actor: one that nobody ends must not keep the process.
  std::promise<void> ended;
  std::thread([until = ended.get_future()] {
    if (until.wait_for(std::chrono::seconds(5)) == std::future_status::ready)
      return;
    std::fputs("neuroshard: an actor does not end; leaving without it\n", stderr);
    std::_Exit(static_cast<int>(exit_code::fatal));
  }).detach();
  system_.reset();
  ended.set_value();
  book_.reset();
  reader_.reset();
  if (console_)
    console_->finish();
  if (directory_ && daemon_)
    remove_pid_file(directory_->paths());
  if (log_)
    log_->flush();
}

} // namespace

int run_node(command_line given, loaded_config loaded, std::optional<daemon_child> daemon,
             const process_start& start) {
  {
    node one(std::move(given), std::move(loaded), std::move(daemon));
    const int status = one.run();
    if (!one.again())
      return status;
  }
  std::cerr << "neuroshard: " << start_again(start) << '\n';
  return static_cast<int>(exit_code::fatal);
}

} // namespace neuroshard
