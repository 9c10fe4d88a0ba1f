#include "gateway/config/schema.hpp"

#include <algorithm>
#include <array>

namespace neuroshard {

namespace {

#define FIELD(name) [](node_config& c) -> config_field { return &c.name; }

constexpr double billion = 1e9;

// One row is one entry, read column by column.
// clang-format off
constexpr key_spec rows[] = {
  // Root.
  {.key = "token_file", .field = FIELD(token_file), .fallback = "", .help = "File that holds the access token (mode 0600)",
   .rule = text_rule::path, .automatic = "none", .flag = "--token-file", .environment = "NEUROSHARD_TOKEN_FILE"},
  {.key = "port", .field = FIELD(port), .fallback = "8000", .help = "HTTP port; gRPC listens 1000 above it", .min = 1,
   .max = 64535, .flag = "--port", .short_flag = "-p", .environment = "NEUROSHARD_PORT"},
  {.key = "http_host", .field = FIELD(http_host), .fallback = "127.0.0.1", .help = "Address that HTTP listens on",
   .rule = text_rule::ip_address, .flag = "--http-host", .environment = "NEUROSHARD_HTTP_HOST"},
  {.key = "grpc_host", .field = FIELD(grpc_host), .fallback = "0.0.0.0", .help = "Address that peers reach this node on",
   .rule = text_rule::ip_address, .flag = "--grpc-host", .environment = "NEUROSHARD_GRPC_HOST"},
  {.key = "network", .field = FIELD(network), .fallback = "main",
   .help = "Name of the network; nodes of other names do not peer", .rule = text_rule::network_name, .flag = "--network",
   .environment = "NEUROSHARD_NETWORK"},
  {.key = "instance", .field = FIELD(instance), .fallback = "0", .help = "Number of this node among those of one wallet",
   .min = 0, .max = 65535, .flag = "--instance", .environment = "NEUROSHARD_INSTANCE"},
  {.key = "device", .field = FIELD(device), .fallback = "auto", .help = "Where the model runs",
   .rule = text_rule::device_name, .flag = "--device", .environment = "NEUROSHARD_DEVICE"},
  {.key = "memory_mb", .field = FIELD(memory_mb), .fallback = "", .help = "Memory offered to the model, in MB", .min = 256,
   .max = 1e12, .limit = limit_rule::physical_memory, .automatic = "70 % of the device's memory", .flag = "--memory",
   .environment = "NEUROSHARD_MEMORY", .patch = "resources.max_memory_gb", .patch_restart = true},
  {.key = "cpu_threads", .field = FIELD(cpu_threads), .fallback = "", .help = "Threads shared out between all parts",
   .min = 1, .max = 65536, .limit = limit_rule::hardware_threads, .automatic = "all hardware threads",
   .flag = "--cpu-threads", .live = true, .patch = "resources.cpu_threads"},
  {.key = "tracker", .field = FIELD(tracker), .fallback = "", .help = "Tracker to ask for peers",
   .rule = text_rule::host_port, .automatic = "none", .flag = "--tracker", .environment = "NEUROSHARD_TRACKER"},
  {.key = "seed_peers", .field = FIELD(seed_peers), .fallback = "[]", .help = "Peers to join through",
   .rule = text_rule::host_port, .flag = "--seed-peers", .environment = "NEUROSHARD_BOOTSTRAP_NODES"},
  {.key = "announce_ip", .field = FIELD(announce_ip), .fallback = "", .help = "Address announced to peers",
   .rule = text_rule::ip_address, .automatic = "detected", .flag = "--announce-ip"},
  {.key = "announce_port", .field = FIELD(announce_port), .fallback = "", .help = "gRPC port announced to peers", .min = 1,
   .max = 65535, .automatic = "the gRPC port", .flag = "--announce-port"},
  {.key = "observer", .field = FIELD(observer), .fallback = "false", .help = "Hold no layers and train nothing",
   .flag = "--observer"},
  {.key = "tracker_mode", .field = FIELD(tracker_mode), .fallback = "false", .help = "Serve as tracker; hold no layers",
   .flag = "--tracker-mode"},
  {.key = "log_level", .field = FIELD(log_level), .fallback = "INFO", .help = "Least level that is logged",
   .rule = text_rule::one_of, .choices = "TRACE DEBUG INFO WARN ERROR", .flag = "--log-level",
   .environment = "NEUROSHARD_LOG_LEVEL", .live = true},

  // [training]
  {.key = "training.enabled", .field = FIELD(training.enabled), .fallback = "true", .help = "Train while running",
   .flag = "--no-training", .flag_value = false, .live = true, .patch = "training.enabled"},
  {.key = "training.batch_size", .field = FIELD(training.batch_size), .fallback = "8", .help = "Sequences per step, at most",
   .min = 1, .max = 1024, .live = true, .patch = "training.batch_size", .network_parameter = true},
  {.key = "training.seq_len", .field = FIELD(training.seq_len), .fallback = "512", .help = "Tokens per training sequence",
   .min = 16, .max = 1 << 20, .limit = limit_rule::context, .network_parameter = true},
  {.key = "training.microbatches", .field = FIELD(training.microbatches), .fallback = "4",
   .help = "Parts a batch is cut into", .min = 1, .max = 1024, .limit = limit_rule::batch_size},
  {.key = "training.learning_rate", .field = FIELD(training.learning_rate), .fallback = "0.0001",
   .help = "Peak learning rate", .min = 0, .max = 1, .open_min = true, .live = true, .patch = "training.learning_rate",
   .network_parameter = true},
  {.key = "training.warmup_steps", .field = FIELD(training.warmup_steps), .fallback = "1000",
   .help = "Steps until the peak rate", .min = 0, .max = billion, .limit = limit_rule::decay_steps,
   .network_parameter = true},
  {.key = "training.decay_steps", .field = FIELD(training.decay_steps), .fallback = "50000",
   .help = "Step at which the rate has fallen to a tenth of its peak", .min = 1, .max = billion, .network_parameter = true},
  {.key = "training.diloco_steps", .field = FIELD(training.diloco_steps), .fallback = "500",
   .help = "Inner steps per outer round", .min = 1, .max = 10000, .flag = "--diloco-steps", .live = true,
   .patch = "training.diloco_steps", .network_parameter = true},
  {.key = "training.outer_lr", .field = FIELD(training.outer_lr), .fallback = "0.7",
   .help = "Learning rate of the outer step", .min = 0, .max = 2, .open_min = true, .network_parameter = true},
  {.key = "training.outer_momentum", .field = FIELD(training.outer_momentum), .fallback = "0.9",
   .help = "Momentum of the outer step", .min = 0, .max = 1, .open_max = true, .network_parameter = true},
  {.key = "training.aggregation", .field = FIELD(training.aggregation), .fallback = "trimmed_mean",
   .help = "How contributions of peers are combined", .rule = text_rule::one_of,
   .choices = "mean median trimmed_mean krum multi_krum geometric_median", .network_parameter = true},
  {.key = "training.trim_fraction", .field = FIELD(training.trim_fraction), .fallback = "0.1",
   .help = "Share cut off at either end by trimmed_mean", .min = 0, .max = 0.5, .open_max = true, .network_parameter = true},
  {.key = "training.compression", .field = FIELD(training.compression), .fallback = "dense_i8",
   .help = "How deltas travel (topk_i8 only with aggregation mean)", .rule = text_rule::one_of,
   .choices = "none dense_i8 dense_i4 topk_i8", .network_parameter = true},
  {.key = "training.top_k_ratio", .field = FIELD(training.top_k_ratio), .fallback = "0.1",
   .help = "Share of entries topk_i8 sends", .min = 0, .max = 1, .open_min = true, .network_parameter = true},
  {.key = "training.min_cosine", .field = FIELD(training.min_cosine), .fallback = "0.0",
   .help = "Least agreement of a contribution with the others", .min = -1, .max = 1, .open_max = true,
   .network_parameter = true},

  // [inference]
  {.key = "inference.max_queue", .field = FIELD(inference.max_queue), .fallback = "64", .help = "Requests that may wait",
   .min = 1, .max = 4096},
  {.key = "inference.timeout_s", .field = FIELD(inference.timeout_s), .fallback = "120",
   .help = "Longest time one request may take", .min = 1, .max = 120},
  {.key = "inference.charge_self", .field = FIELD(inference.charge_self), .fallback = "false",
   .help = "Whether the operator pays on the own node"},
  {.key = "inference.refresh_s", .field = FIELD(inference.refresh_s), .fallback = "30",
   .help = "Age at which the serving copy is renewed while alone", .min = 1, .max = 3600},

  // [log]
  {.key = "log.access", .field = FIELD(log.access), .fallback = "true",
   .help = "A line at level INFO for each finished HTTP request", .live = true},

  // [api]
  {.key = "api.allow_plain_http", .field = FIELD(api.allow_plain_http), .fallback = "false",
   .help = "Give scopes wallet and admin also over plain HTTP from elsewhere"},
  {.key = "api.trusted_proxies", .field = FIELD(api.trusted_proxies), .fallback = "[]",
   .help = "Proxies whose X-Forwarded headers are believed", .rule = text_rule::cidr},
  {.key = "api.cors_origins", .field = FIELD(api.cors_origins), .fallback = "[]",
   .help = "Origins that may call from a browser", .rule = text_rule::origin},
  {.key = "api.tokens", .field = FIELD(api.tokens), .fallback = "[]",
   .help = "Further access tokens, by SHA-256, with their scopes"},
  {.key = "api.tls.cert", .field = FIELD(api.tls_cert), .fallback = "", .help = "Certificate chain for HTTPS, PEM",
   .rule = text_rule::path, .automatic = "none"},
  {.key = "api.tls.key", .field = FIELD(api.tls_key), .fallback = "", .help = "Its private key, PEM", .rule = text_rule::path,
   .automatic = "none"},
  {.key = "api.rate_limits.status", .field = FIELD(api.rate_limits.status), .fallback = "100",
   .help = "Reading requests per 60 s and identity; 0 = unlimited", .min = 0, .max = billion, .live = true},
  {.key = "api.rate_limits.inference", .field = FIELD(api.rate_limits.inference), .fallback = "60",
   .help = "Inference requests, likewise", .min = 0, .max = billion, .live = true},
  {.key = "api.rate_limits.wallet", .field = FIELD(api.rate_limits.wallet), .fallback = "10",
   .help = "Wallet requests, likewise", .min = 0, .max = billion, .live = true},
  {.key = "api.rate_limits.health", .field = FIELD(api.rate_limits.health), .fallback = "600",
   .help = "Health requests per 60 s and client address; 0 = unlimited", .min = 0, .max = billion, .live = true},
  {.key = "api.rate_limits.auth_failures", .field = FIELD(api.rate_limits.auth_failures), .fallback = "30",
   .help = "Wrong tokens, likewise", .min = 0, .max = billion, .live = true},

  // [grpc] [dht]
  {.key = "grpc.insecure", .field = FIELD(grpc.insecure), .fallback = "false",
   .help = "No TLS between nodes; only where all gRPC addresses are loopback"},
  {.key = "dht.enabled", .field = FIELD(dht.enabled), .fallback = "true", .help = "Find peers through the DHT",
   .flag = "--no-dht", .flag_value = false},
  {.key = "dht.port", .field = FIELD(dht.port), .fallback = "", .help = "UDP port of the DHT", .min = 1, .max = 65535,
   .automatic = "HTTP port + 2000"},

  // [checkpoint]
  {.key = "checkpoint.every_steps", .field = FIELD(checkpoint.every_steps), .fallback = "500",
   .help = "Inner steps between checkpoints", .min = 1, .max = 1e6},
  {.key = "checkpoint.keep", .field = FIELD(checkpoint.keep), .fallback = "5", .help = "Checkpoints kept", .min = 1,
   .max = 100},
  {.key = "checkpoint.max_storage_mb", .field = FIELD(checkpoint.max_storage_mb), .fallback = "0",
   .help = "Disk space for them; 0 = 10 % of what is free", .min = 0, .max = billion},

  // [model]
  {.key = "model.preset", .field = FIELD(model.preset), .fallback = "auto",
   .help = "Size of the model; auto is pico while alone, the network's on joining", .rule = text_rule::one_of,
   .choices = "auto pico nano micro small medium large xl custom"},
  {.key = "model.num_layers", .field = FIELD(model.num_layers), .fallback = "6", .help = "Transformer blocks", .min = 1,
   .max = 64, .custom_only = true},
  {.key = "model.hidden_dim", .field = FIELD(model.hidden_dim), .fallback = "256", .help = "Width", .min = 32, .max = 8192,
   .custom_only = true},
  {.key = "model.num_heads", .field = FIELD(model.num_heads), .fallback = "4",
   .help = "Query heads; width / heads is 32, 64 or 128", .min = 1, .max = 256, .custom_only = true},
  {.key = "model.num_kv_heads", .field = FIELD(model.num_kv_heads), .fallback = "2",
   .help = "Key and value heads; divides num_heads", .min = 1, .max = 256, .custom_only = true},
  {.key = "model.ffn_dim", .field = FIELD(model.ffn_dim), .fallback = "1024",
   .help = "Inner width of SwiGLU, a multiple of 8", .min = 8, .max = 65536, .custom_only = true},
  {.key = "model.vocab_capacity", .field = FIELD(model.vocab_capacity), .fallback = "4096",
   .help = "Embedding rows, a multiple of 64", .min = 320, .max = 1 << 20, .custom_only = true},
  {.key = "model.max_seq_len", .field = FIELD(model.max_seq_len), .fallback = "2048", .help = "Context in tokens", .min = 16,
   .max = 131072, .custom_only = true},
  {.key = "model.rope_base", .field = FIELD(model.rope_base), .fallback = "10000.0", .help = "Base of the rotary embedding",
   .min = 1, .max = billion, .custom_only = true},
  {.key = "model.norm_eps", .field = FIELD(model.norm_eps), .fallback = "1e-06", .help = "Epsilon of RMSNorm", .min = 0,
   .max = 0.01, .open_min = true, .custom_only = true},
  {.key = "model.num_experts", .field = FIELD(model.num_experts), .fallback = "0", .help = "Experts per block; 0 = dense",
   .min = 0, .max = 64, .custom_only = true},
  {.key = "model.top_k", .field = FIELD(model.top_k), .fallback = "0", .help = "Experts used per token; 0 = dense", .min = 0,
   .max = 64, .custom_only = true},
  {.key = "model.tie_embeddings", .field = FIELD(model.tie_embeddings), .fallback = "false",
   .help = "Head shares the embedding", .custom_only = true},
  {.key = "model.dtype", .field = FIELD(model.dtype), .fallback = "bf16", .help = "Number format of weights in use",
   .rule = text_rule::one_of, .choices = "bf16 f32"},
  {.key = "model.seed", .field = FIELD(model.seed), .fallback = "0",
   .help = "Seed of the initial weights (above 2^63 as text)"},

  // [data]
  {.key = "data.corpus", .field = FIELD(data.corpus), .fallback = "", .help = "Text file or directory to train on",
   .rule = text_rule::path, .automatic = "none"},
  {.key = "data.shards", .field = FIELD(data.shards), .fallback = "",
   .help = "Directory or URL of ready token shards, in place of a corpus", .rule = text_rule::path_or_url,
   .automatic = "none"},
  {.key = "data.tokenizer", .field = FIELD(data.tokenizer), .fallback = "tokenizer.json", .help = "Merges of the tokenizer",
   .rule = text_rule::path},
  {.key = "data.vocab_size", .field = FIELD(data.vocab_size), .fallback = "", .help = "Tokens of a newly trained tokenizer",
   .min = 266, .max = 1 << 20, .limit = limit_rule::vocab_capacity, .automatic = "model.vocab_capacity"},
  {.key = "data.held_out", .field = FIELD(data.held_out), .fallback = "0.05", .help = "Share of the text kept for validation",
   .min = 0, .max = 0.5, .open_min = true},
  {.key = "data.max_storage_mb", .field = FIELD(data.max_storage_mb), .fallback = "100",
   .help = "Disk space for token shards", .min = 10, .max = 1e12, .limit = limit_rule::free_disk, .flag = "--max-storage",
   .live = true, .patch = "resources.max_storage_mb"},

  // [peers] [threads]
  {.key = "peers.min", .field = FIELD(peers.min), .fallback = "8", .help = "Connections to look for", .min = 0, .max = 1024},
  {.key = "peers.max", .field = FIELD(peers.max), .fallback = "64", .help = "Connections at most", .min = 0, .max = 1024},
  {.key = "peers.max_layers", .field = FIELD(peers.max_layers), .fallback = "0", .help = "Layers held at most; 0 = by memory",
   .min = 0, .max = 64, .limit = limit_rule::num_layers},
  {.key = "threads.compute", .field = FIELD(threads.compute), .fallback = "0",
   .help = "Compute threads; 0 = share of cpu_threads", .min = 0, .max = 65536, .limit = limit_rule::hardware_threads},
  {.key = "threads.actors", .field = FIELD(threads.actors), .fallback = "0",
   .help = "Threads of the actor scheduler; 0 = likewise", .min = 0, .max = 65536, .limit = limit_rule::hardware_threads},
  {.key = "threads.http", .field = FIELD(threads.http), .fallback = "0", .help = "HTTP threads; 0 = likewise", .min = 0,
   .max = 65536, .limit = limit_rule::hardware_threads},

#define AMOUNT(name, value, text)                                                                            \
  {                                                                                                          \
    .key = "economics." #name, .field = FIELD(economics.name), .fallback = value, .help = text,              \
    .rule = text_rule::amount                                                                                \
  }
#define NUMBER(name, value, from, to, text)                                                                  \
  {                                                                                                          \
    .key = "economics." #name, .field = FIELD(economics.name), .fallback = #value, .help = text,             \
    .min = from, .max = to                                                                                   \
  }
  // [economics]: hashed into the network's identity.
  AMOUNT(price_per_token, "0.0001", "Price of one generated or prompt token, in NEURO"),
  NUMBER(transfer_fee_bp, 10, 0, 1e4, "Fee of a transfer, in 1/10,000"),
  AMOUNT(min_stake, "1000", "Least stake"),
  AMOUNT(max_stake, "10000000", "Largest stake"),
  NUMBER(min_lock_days, 7, 1, 1e6, "Shortest lock"),
  NUMBER(max_lock_days, 365, 1, 1e6, "Longest lock"),
  NUMBER(default_lock_days, 30, 1, 1e6, "Lock where none is asked for"),
  NUMBER(cooldown_days, 7, 1, 1e6, "Days between unstaking and having the amount back"),
  AMOUNT(stake_unit, "1000", "Stake that counts as one unit"),
  NUMBER(stake_slope_ppm, 100000, 0, 1e7, "Growth of the stake multiplier, in 1/1,000,000"),
  {.key = "economics.validator_tiers", .field = FIELD(economics.validator_tiers),
   .fallback = "[[0, 0], [3, 100], [11, 250], [51, 500], [201, 1000], [1001, 2500]]",
   .help = "From how many validators on, which stake in whole NEURO"},
  NUMBER(burn_bp, 500, 0, 1e4, "Share of an inference fee that is burned"),
  NUMBER(driver_bp, 1500, 0, 1e4, "Share of the driver; the three make 10,000"),
  NUMBER(worker_bp, 7000, 0, 1e4, "Share of the workers"),
  NUMBER(validator_bp, 1500, 0, 1e4, "Share of the validator"),
  AMOUNT(uptime_per_minute, "0.0001", "Reward for a minute online"),
  AMOUNT(training_per_batch, "0.0005", "Reward for a batch"),
  AMOUNT(async_per_batch, "0.0003", "Reward for a batch that came late"),
  NUMBER(batch_tokens, 4096, 1, billion, "Tokens that count as one batch"),
  AMOUNT(data_per_sample, "0.00001", "Reward for a data sample served"),
  NUMBER(data_samples_per_minute, 1000, 0, billion, "Samples rewarded per minute, at most"),
  NUMBER(role_driver_ppm, 200000, 0, 1e7, "Bonus of drivers"),
  NUMBER(role_validator_ppm, 300000, 0, 1e7, "Bonus of validators"),
  NUMBER(role_training_ppm, 100000, 0, 1e7, "Bonus of nodes that train"),
  NUMBER(reputation_ppm, 100000, 0, 1e7, "Bonus of proven nodes"),
  NUMBER(reputation_days, 30, 1, 1e6, "Days looked back for it"),
  NUMBER(reputation_min_proofs, 100, 0, billion, "Proofs needed for it"),
  NUMBER(scarcity_ppm, 500000, 0, 1e7, "Bonus for scarce layers"),
  NUMBER(scarcity_min, 3, 0, 1024, "Replicas below which a layer is scarce"),
  NUMBER(scarcity_share_bp, 1000, 0, 1e4, "Share of nodes below which a layer is scarce"),
  AMOUNT(max_per_proof, "100", "Largest reward of one proof"),
  AMOUNT(max_per_wallet_day, "10000", "Largest reward of a wallet and day"),
  NUMBER(maturity_s, 600, 1, 1e6, "Seconds until a reward can be spent"),
  NUMBER(reservation_s, 600, 1, 1e6, "Seconds a reservation lasts; at least inference.timeout_s + 60"),
  NUMBER(proof_max_age_s, 300, 1, 1e6, "Oldest proof accepted"),
  NUMBER(proof_max_ahead_s, 60, 1, 1e6, "Furthest into the future a proof may be dated"),
  NUMBER(proofs_per_hour, 120, 1, billion, "Proofs of a node and hour, at most"),
  NUMBER(tokens_per_minute, 1000000, 1, billion, "Tokens per minute that are believed"),
  NUMBER(steps_per_minute, 2000, 1, billion, "Steps per minute that are believed"),
  NUMBER(speed_slack_bp, 12000, 0, 1e6, "Slack over the measured speed, in 1/10,000"),
  AMOUNT(slash_invalid_proof, "10", "Penalty for an invalid proof"),
  AMOUNT(slash_conflict, "1000", "Penalty for two conflicting statements"),
  {.key = "economics.slash_spot_check", .field = FIELD(economics.slash_spot_check), .fallback = "false",
   .help = "Whether a failed spot check costs stake"},
  AMOUNT(slash_spot_check_amount, "1000", "Penalty for a failed spot check"),
#undef AMOUNT
#undef NUMBER
};
// clang-format on

#undef FIELD

struct shape {
  std::string_view preset;
  int64_t layers, hidden, heads, kv_heads, ffn, vocab;
};

/// Section 5 of model.md, and pico of section 1.
constexpr shape shapes[] = {
    {"pico", 6, 256, 4, 2, 1024, 4096},        {"nano", 8, 512, 4, 1, 2048, 32000},
    {"micro", 16, 1024, 8, 2, 4096, 32000},    {"small", 24, 2048, 16, 4, 8192, 32000},
    {"medium", 32, 3072, 24, 6, 12288, 32000}, {"large", 48, 5120, 40, 10, 20480, 32000},
    {"xl", 64, 7168, 56, 14, 28672, 32000},    {"auto", 6, 256, 4, 2, 1024, 4096},
    {"custom", 6, 256, 4, 2, 1024, 4096},
};

/// Edit distance with a cut-off, for suggestions; both texts are short.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t up = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = up;
    }
  }
  return row[b.size()];
}

} // namespace

std::span<const key_spec> schema() {
  return rows;
}

const key_spec* find_key(std::string_view key) {
  for (const key_spec& row : rows)
    if (row.key == key)
      return &row;
  return nullptr;
}

const key_spec* find_patch_key(std::string_view name) {
  if (name.empty())
    return nullptr;
  if (name == "resources.max_memory_mb")
    return find_key("memory_mb");
  for (const key_spec& row : rows)
    if (row.patch == name)
      return &row;
  return nullptr;
}

std::string_view closest(std::string_view typed, std::span<const std::string_view> known) {
  if (typed.size() > 64)
    return {};
  std::string_view best;
  size_t best_distance = std::max<size_t>(1, typed.size() / 3) + 1;
  for (const std::string_view candidate : known) {
    const size_t d = distance(typed, candidate);
    if (d < best_distance) {
      best = candidate;
      best_distance = d;
    }
  }
  return best;
}

std::vector<std::pair<std::string_view, config_value>> preset_defaults(std::string_view preset) {
  const auto* found =
      std::find_if(std::begin(shapes), std::end(shapes), [&](const shape& s) { return s.preset == preset; });
  if (found == std::end(shapes))
    return {};
  std::vector<std::pair<std::string_view, config_value>> out = {
      {"model.num_layers", found->layers}, {"model.hidden_dim", found->hidden},
      {"model.num_heads", found->heads},   {"model.num_kv_heads", found->kv_heads},
      {"model.ffn_dim", found->ffn},       {"model.vocab_capacity", found->vocab},
  };
  if (preset == "pico" || preset == "auto") {
    // training.md section 3: pico's schedule fits ten minutes on two cores.
    out.emplace_back("training.batch_size", int64_t{8});
    out.emplace_back("training.seq_len", int64_t{256});
    out.emplace_back("training.microbatches", int64_t{1});
    out.emplace_back("training.learning_rate", 2e-3);
    out.emplace_back("training.warmup_steps", int64_t{100});
    out.emplace_back("training.decay_steps", int64_t{3000});
  }
  return out;
}

node_config default_config(std::string_view preset) {
  static const node_config global = [] {
    node_config c;
    for (const key_spec& row : rows) {
      if (row.fallback.empty())
        continue;
      if (auto value = parse_text(row, row.fallback))
        set_value(row, c, *value);
    }
    return c;
  }();
  node_config c = global;
  for (auto& [key, value] : preset_defaults(preset))
    set_value(*find_key(key), c, value);
  if (!preset_defaults(preset).empty())
    c.model.preset = std::string(preset);
  c.data.vocab_size = c.model.vocab_capacity;
  return c;
}

config_value get_value(const key_spec& spec, const node_config& c) {
  // The row's function takes a mutable object so that one function serves both ways; nothing is written here.
  return std::visit([](auto* field) -> config_value { return *field; },
                    spec.field(const_cast<node_config&>(c)));
}

void set_value(const key_spec& spec, node_config& c, const config_value& value) {
  std::visit(
      [&](auto* field) {
        using T = std::remove_pointer_t<decltype(field)>;
        if (const T* held = std::get_if<T>(&value))
          *field = *held;
      },
      spec.field(c));
}

config_value empty_value(const key_spec& spec) {
  static node_config scratch;
  return std::visit([](auto* field) -> config_value { return std::remove_pointer_t<decltype(field)>{}; },
                    spec.field(scratch));
}

} // namespace neuroshard
