#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard {

/// What a node was told to do: plain values, validated once by gateway/config/load_config and handed down by
/// value. Every field is one key of network.md section 9 and one row of the table in
/// gateway/config/schema.cpp, which also sets it. Integers are signed 64 bits so that one kind serves all
/// keys; the ranges of the schema keep them far below any overflow.
///
/// Empty text and 0 mean "not given" where the comment says so; what a key then stands for depends on the
/// machine or on another key and is answered by the functions below.

/// An access token beside the wallet's (`api.tokens`): known by its digest, never by itself.
struct access_token_rule {
  std::string sha256;              ///< 64 lower-case hex digits: SHA-256 of the canonical token
  std::vector<std::string> scopes; ///< of read, inference, wallet, admin; at least one
  friend bool operator==(const access_token_rule&, const access_token_rule&) = default;
};

/// A step of `economics.validator_tiers`: from this many validators on, this stake in whole NEURO.
using tier_config = std::pair<int64_t, int64_t>;

struct training_config {
  bool enabled = true;
  int64_t batch_size = 0;   ///< sequences
  int64_t seq_len = 0;      ///< tokens
  int64_t microbatches = 0; ///< per batch
  double learning_rate = 0; ///< peak
  int64_t warmup_steps = 0;
  int64_t decay_steps = 0;
  int64_t diloco_steps = 0;
  double outer_lr = 0;
  double outer_momentum = 0;
  std::string aggregation;
  double trim_fraction = 0;
  std::string compression;
  double top_k_ratio = 0;
  double min_cosine = 0;
  friend bool operator==(const training_config&, const training_config&) = default;
};

struct inference_config {
  int64_t max_queue = 0;
  int64_t timeout_s = 0;
  bool charge_self = false;
  int64_t refresh_s = 0; ///< age of the serving copy while alone
  friend bool operator==(const inference_config&, const inference_config&) = default;
};

/// Requests per 60 s; 0 = unlimited.
struct rate_limits_config {
  int64_t status = 0, inference = 0, wallet = 0; ///< per identity
  int64_t health = 0, auth_failures = 0;         ///< per client address
  friend bool operator==(const rate_limits_config&, const rate_limits_config&) = default;
};

struct api_config {
  bool allow_plain_http = false;
  std::vector<std::string> trusted_proxies; ///< addresses or CIDR
  std::vector<std::string> cors_origins;
  std::vector<access_token_rule> tokens;
  std::string tls_cert, tls_key; ///< absolute paths, or both empty
  rate_limits_config rate_limits;
  friend bool operator==(const api_config&, const api_config&) = default;
};

struct log_config {
  bool access = true; ///< a line for each HTTP request
  friend bool operator==(const log_config&, const log_config&) = default;
};

struct grpc_config {
  bool insecure = false;
  friend bool operator==(const grpc_config&, const grpc_config&) = default;
};

struct dht_config {
  bool enabled = true;
  int64_t port = 0; ///< 0 = HTTP port + 2000
  friend bool operator==(const dht_config&, const dht_config&) = default;
};

struct checkpoint_config {
  int64_t every_steps = 0;
  int64_t keep = 0;
  int64_t max_storage_mb = 0; ///< 0 = 10 % of the free disk
  friend bool operator==(const checkpoint_config&, const checkpoint_config&) = default;
};

/// The shape is always filled in: by the preset's table (auto = pico), or by the keys of the preset custom.
struct model_config {
  std::string preset;
  int64_t num_layers = 0, hidden_dim = 0, num_heads = 0, num_kv_heads = 0, ffn_dim = 0;
  int64_t vocab_capacity = 0, max_seq_len = 0;
  double rope_base = 0, norm_eps = 0;
  int64_t num_experts = 0, top_k = 0; ///< 0 = dense
  bool tie_embeddings = false;
  std::string dtype; ///< bf16 or f32
  /// Canonical JSON of what a node with preset "auto" has taken over from its network; empty: nothing, it
  /// runs pico. Not a key.
  std::string adopted;
  uint64_t seed = 0;
  friend bool operator==(const model_config&, const model_config&) = default;
};

struct data_config {
  std::string corpus;    ///< absolute path of a text file or directory, or empty
  std::string shards;    ///< absolute path of a directory, or a URL, or empty
  std::string tokenizer; ///< absolute path
  int64_t vocab_size = 0;
  double held_out = 0;
  int64_t max_storage_mb = 0;
  friend bool operator==(const data_config&, const data_config&) = default;
};

struct peers_config {
  int64_t min = 0, max = 0;
  int64_t max_layers = 0; ///< 0 = by memory
  friend bool operator==(const peers_config&, const peers_config&) = default;
};

/// 0 = a share of cpu_threads.
struct threads_config {
  int64_t compute = 0, actors = 0, http = 0;
  friend bool operator==(const threads_config&, const threads_config&) = default;
};

/// Defaults of EconomicsParams (economics.md). Amounts are decimal text of NEURO, checked to be amounts of 0
/// to 10^12; `_bp` is 1/10,000, `_ppm` 1/1,000,000. gateway/main.cpp turns this into the ledger's own
/// structure.
struct economics_config {
  std::string price_per_token, min_stake, max_stake, stake_unit;
  std::string uptime_per_minute, training_per_batch, async_per_batch, data_per_sample;
  std::string max_per_proof, max_per_wallet_day;
  std::string slash_invalid_proof, slash_conflict, slash_spot_check_amount;
  bool slash_spot_check = false;
  int64_t transfer_fee_bp = 0, burn_bp = 0, driver_bp = 0, worker_bp = 0, validator_bp = 0;
  int64_t scarcity_share_bp = 0, speed_slack_bp = 0;
  int64_t stake_slope_ppm = 0, role_driver_ppm = 0, role_validator_ppm = 0, role_training_ppm = 0;
  int64_t reputation_ppm = 0, scarcity_ppm = 0;
  int64_t min_lock_days = 0, max_lock_days = 0, default_lock_days = 0, cooldown_days = 0, reputation_days = 0;
  int64_t batch_tokens = 0, data_samples_per_minute = 0, reputation_min_proofs = 0, scarcity_min = 0;
  int64_t maturity_s = 0, reservation_s = 0, proof_max_age_s = 0, proof_max_ahead_s = 0;
  int64_t proofs_per_hour = 0, tokens_per_minute = 0, steps_per_minute = 0;
  std::vector<tier_config> validator_tiers;
  friend bool operator==(const economics_config&, const economics_config&) = default;
};

struct node_config {
  std::string token_file; ///< absolute path, or empty
  int64_t port = 0;
  std::string http_host, grpc_host; ///< IP addresses
  std::string network;
  int64_t instance = 0;
  std::string device;      ///< auto, cuda, cuda:N, cpu
  int64_t memory_mb = 0;   ///< 0 = 70 % of the device's memory, or of RAM on a CPU
  int64_t cpu_threads = 0; ///< 0 = all hardware threads
  std::string tracker;     ///< host:port, or empty
  std::vector<std::string> seed_peers;
  std::string announce_ip;   ///< empty = detected
  int64_t announce_port = 0; ///< 0 = the gRPC port
  bool observer = false;
  bool tracker_mode = false;
  std::string log_level; ///< TRACE, DEBUG, INFO, WARN, ERROR
  log_config log;

  training_config training;
  inference_config inference;
  api_config api;
  grpc_config grpc;
  dht_config dht;
  checkpoint_config checkpoint;
  model_config model;
  data_config data;
  peers_config peers;
  threads_config threads;
  economics_config economics;
  friend bool operator==(const node_config&, const node_config&) = default;
};

/// What the ranges of some keys depend on; passed in so that a test decides it.
struct machine_facts {
  int64_t hardware_threads = 1;
  int64_t physical_memory_mb = 0; ///< 0 = unknown: no upper limit is then checked
  int64_t free_disk_mb = 0;       ///< of the file system of the data directory; 0 = unknown, likewise
  friend bool operator==(const machine_facts&, const machine_facts&) = default;
};

/// Reads the facts from the operating system. `path` may not exist yet: then its nearest existing parent
/// counts.
machine_facts read_machine_facts(const std::string& path);

/// The thread budget of the process.
int64_t effective_cpu_threads(const node_config& c, const machine_facts& machine) noexcept;
/// HTTP port + 1000, always.
int64_t grpc_port(const node_config& c) noexcept;
/// False for observers and trackers: they hold no part of the model, and so neither train nor serve.
bool takes_layers(const node_config& c) noexcept;
/// The DHT's UDP port; 0 when the DHT is off, or when HTTP port + 2000 would be above 65535 (warn then).
int64_t dht_port(const node_config& c) noexcept;
/// Whether the HTTP address is this machine alone.
bool http_is_loopback(const node_config& c) noexcept;
/// Where a program on this machine reaches the HTTP API: "http://127.0.0.1:8000", "https://[::1]:8000". An
/// address that stands for all of them becomes the loopback address of its family.
std::string api_url(const node_config& c);
/// "127.0.0.1" or "::1" and their whole ranges; also "localhost".
bool is_loopback_host(const std::string& host) noexcept;

} // namespace neuroshard
