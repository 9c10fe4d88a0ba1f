#pragma once

#include "kernels/core/status.hpp"
#include "kernels/core/tensor.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

/// The contract between everything that computes and the machine it computes on. A backend is a table of
/// functions: `reference` (portable, the readable specification), `cpu` (oneDNN, Highway) and `cuda`
/// implement it.
///
/// Rules that hold for every operation in the table:
/// - It takes a queue and enqueues its work there in order; it may return before the work is done. Scalars
/// that
///   it produces (loss, norm, flags, sampled ids) land in device memory; the host reads them after `copy` to
///   host memory and `wait`. Nothing above the table dereferences device memory unless the buffer is host
///   visible.
/// - It returns a status and never throws. On an error nothing has been enqueued.
/// - Operands are views; unless an operand says otherwise it is row-major with unit stride in the innermost
///   dimension and any stride in the outer ones. Outputs are overwritten unless the operand says
///   "accumulates".
/// - Inputs and outputs do not overlap, except where "in place" is said.
/// - Activations ("act") are all f32 or all bf16 in one call; statistics, sums and softmax are computed in
/// f32.
/// - Zero rows are legal and do nothing.
/// - Indices in device memory (ids, labels, positions, block tables) are the caller's to check; one out of
/// range never touches
///   memory outside the operands: each operation says what it does instead.
/// - Shapes, types and strides are checked by every backend with the same code (kernels/core/check.hpp).
/// - Scratch memory is the caller's: `*_workspace` says how many bytes, `workspace` passes them (64-byte
/// aligned).
/// - Results do not depend on the number of threads: work is cut into tiles by shape alone, and every sum has
/// a fixed order.
///
/// Shape letters: T rows (tokens of all sequences), B sequences, S positions in one, K input features, N
/// output features, H query heads, G key/value heads, D head size, F SwiGLU width, V vocabulary rows, C model
/// width.
namespace neuroshard::kernels {

inline constexpr uint32_t backend_abi = 1;

class device;
class queue;
class event;

/// How a device is opened.
struct device_options {
  int index = 0;             ///< which of the backend's devices
  int threads = 0;           ///< CPU: threads of the one compute pool; 0 = all hardware threads
  uint64_t memory_bytes = 0; ///< upper bound of all allocations together; 0 = none
  std::string isa;           ///< CPU: "" = the best there is; "avx2", "sse4" and the like cap it, for tests
};

/// What a device can do. Fixed while it is open.
struct device_info {
  std::string name;          ///< for people: the processor or the card
  uint64_t memory_total = 0; ///< bytes
  bool host_visible = false; ///< allocations can be read and written by the host directly
  bool fast_bf16 = false;    ///< bf16 products are faster than f32 ones here (`model.dtype = "bf16"` pays)
  int threads = 1;
};

/// What a weight will be used for; picks the layouts that `prepare_weight` makes.
enum class weight_use : uint8_t {
  train, ///< `linear` and `linear_backward_input`, remade after each optimizer step
  serve, ///< `linear` with few rows (decode) and many (prefill); at most size_of(act) bytes per element
};

// ---------------------------------------------------------------------------------------------- operands

/// out[T,N] = x[T,K] * W[N,K]^T, W as made by prepare_weight. x and out act; out may be f32 when x is bf16.
struct linear_args {
  tensor x;
  tensor weight; ///< prepared bytes (i8, rank 1), made for (N, K, type of x, use)
  weight_use use = weight_use::serve;
  int64_t out_features = 0; ///< N
  tensor out;
  bool accumulate = false; ///< out += instead of out =
  tensor workspace;
};

/// dx[T,K] (+)= dy[T,N] * W[N,K]. dy and dx act.
struct linear_backward_input_args {
  tensor dy;
  tensor weight;           ///< prepared with weight_use::train
  int64_t in_features = 0; ///< K
  tensor dx;
  bool accumulate = false;
  tensor workspace;
};

/// dw[N,K] += dy[T,N]^T * x[T,K]. dy and x act, dw f32, accumulates. Rows [first, first+count) of dw may be
/// computed by passing a column slice of dy.
struct linear_backward_weight_args {
  tensor dy;
  tensor x;
  tensor dw;
  tensor workspace;
};

/// Makes the layout that the products read. Opaque, valid for the device and version of the backend that made
/// it; never stored.
struct prepare_weight_args {
  tensor weight;          ///< [N,K] f32 (the master copy) or act type
  dtype act = dtype::f32; ///< type of the activations it will be multiplied with
  weight_use use = weight_use::train;
  tensor prepared; ///< i8, rank 1, `prepared_bytes` long; overwritten
};

/// out[t] = table[ids[t]]: ids i32 [T] in [0, V), table f32 or act [V,C], out act [T,C]. An id out of range
/// reads row 0.
struct embedding_args {
  tensor ids;
  tensor table;
  tensor out;
};

/// dtable[ids[t]] += dout[t] in ascending t. dtable f32 [V,C], accumulates. An id out of range adds to row 0,
/// as it was read.
struct embedding_backward_args {
  tensor ids;
  tensor dout;
  tensor dtable;
  tensor workspace;
};

/// sum = x + residual (when given; rounded to act, written to `sum`), out = sum * rstd * gain,
/// rstd = 1 / sqrt(mean(sum^2) + eps). x, residual, sum, out act [T,C]; gain f32 [C]; rstd f32 [T]
/// (optional). `sum` may be `x` or `residual` (in place).
struct rms_norm_args {
  tensor x;
  tensor residual; ///< optional
  tensor sum;      ///< with residual
  tensor gain;
  tensor out;
  tensor rstd;
  float eps = 1e-6F;
};

/// dx = r (dy g) - x r^3 mean(dy g x) (+ dresidual), dgain += sum over rows of dy x r. x is the input of the
/// norm.
struct rms_norm_backward_args {
  tensor dy;
  tensor x;
  tensor gain;
  tensor rstd;
  tensor dresidual; ///< optional, act [T,C]; may be `dx` (in place)
  tensor dx;
  tensor dgain; ///< f32 [C], accumulates
  tensor workspace;
};

/// Rotates adjacent pairs by the angle of the row's position; in place. x act [T, heads, D] (outer stride
/// free), positions i32 [T], cosine and sine f32 [positions, D/2]. `inverse` rotates back (the backward
/// pass). A position out of the tables leaves its row as it is.
struct rope_args {
  tensor x;
  tensor positions;
  tensor cosine;
  tensor sine;
  bool inverse = false;
};

/// Causal attention of whole sequences, blocked (Dao et al., FlashAttention-2, 2023): the score matrix is
/// never stored. q act [B*S, H, D], k, v act [B*S, G, D], out act [B*S, H, D], row strides free; lse f32 [B,
/// H, S] (log of the sum of exponentials, optional in inference). Head j reads kv head j / (H/G); scores are
/// scaled by 1/sqrt(D). lengths i32 [B] (optional): positions from there on are padding; they are not
/// attended to, their output, lse and gradients are 0. A length outside 0 ... S counts as the nearer end.
struct attention_args {
  tensor q, k, v, out, lse, lengths;
  int64_t sequences = 1; ///< B
  tensor workspace;
};

/// Gradients of `attention`; dq, dk, dv act, shaped like q, k, v, row strides free, overwritten. `lse` and
/// `out` are those that `attention` wrote.
struct attention_backward_args {
  tensor q, k, v, out, lse, lengths, dout;
  tensor dq, dk, dv;
  int64_t sequences = 1;
  tensor workspace;
};

/// The KV cache of one layer: blocks of `kv_block` positions, keys [blocks, kv_block, G, D], values likewise,
/// act.
inline constexpr int64_t kv_block = 16;

/// Appends rows to caches. Row t belongs to cache row_cache[t] (i32 [T]) at position positions[t] (i32 [T]):
/// block tables[cache, position / kv_block], slot position % kv_block. tables i32 [caches, blocks_max]; k, v
/// act [T,G,D]. A row whose cache, position or block is out of range is dropped: a row_cache of -1 marks a
/// row that only fills up a batch.
struct kv_append_args {
  tensor k, v, row_cache, positions, tables;
  tensor key_cache, value_cache;
};

/// Attention over caches, for prefill and decode alike: row t attends to positions 0 ... positions[t] of its
/// cache, through its block table. q, out act [T,H,D]. Rows of one cache are consecutive and ascending in
/// position. A row whose cache or position is out of range (row_cache -1) gets output 0; a block out of range
/// counts as block 0.
struct paged_attention_args {
  tensor q, row_cache, positions, tables;
  tensor key_cache, value_cache;
  tensor out;
  tensor workspace;
};

/// out = silu(gate) * up. gate, up, out act [T,F], row strides free.
struct swiglu_args {
  tensor gate, up, out;
};

/// Gradients of swiglu. dgate and dup may be `gate` and `up` (in place).
struct swiglu_backward_args {
  tensor gate, up, dout, dgate, dup;
};

/// Softmax cross-entropy of one tile of logits, in place: for each row with label >= 0 adds logsumexp -
/// logits[label] to loss_sum and replaces the row by (softmax - onehot) * scale; rows with a label outside
/// [0, valid_vocab) (-100: none) become 0 and add nothing. logits act or f32 [T,V]; labels i32 [T]; columns
/// >= valid_vocab count as -inf and get gradient 0. loss_sum f64 [1], accumulates (rows in ascending order).
/// With `loss_only` logits stay as they are.
struct cross_entropy_args {
  tensor logits, labels, loss_sum;
  int64_t valid_vocab = 0;
  float scale = 1;
  bool loss_only = false;
  tensor workspace;
};

/// One row of sampling parameters, spec: temperature 0 is argmax (lowest id on ties); top_k 0 and top_p 1 are
/// off. Draws by inverse CDF in ascending id order with Philox4x32-10, key seed, counter step.
/// kernels/core/sampling.hpp holds the algorithm.
struct sample_params {
  float temperature = 1;
  float top_p = 1;
  uint32_t top_k = 0;
  uint32_t valid_vocab = 0;
  uint64_t seed = 0;
  uint64_t step = 0;
};

/// ids i32 [T], logprobs f32 [T] (optional; of the unmodified distribution over the ids that may be drawn).
/// logits f32 [T,V]; params host memory, T of them. PAD, BOS and UNK (0, 1, 3) and ids >= valid_vocab (at
/// least 3, at most V) are never drawn.
struct sample_args {
  tensor logits;
  std::span<const sample_params> params;
  tensor ids, logprobs;
  tensor workspace;
};

/// One parameter tensor of a fused optimizer step. All f32, contiguous, of equal length.
struct adamw_item {
  tensor weight, gradient, first_moment, second_moment;
  float weight_decay = 0;
};

/// AdamW (Loshchilov and Hutter, 2019), decoupled decay, f32:
/// m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; w -= lr (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + wd w),
/// with g = clip * gradient. clip f32 [1] in device memory (see clip_factor). Gradients are zeroed when
/// `zero_gradient`. A clip that is not finite discards the step: weights and moments stay as they are.
struct adamw_args {
  std::span<const adamw_item> items;
  tensor clip;
  float learning_rate = 0, beta1 = 0.9F, beta2 = 0.95F, eps = 1e-8F;
  uint64_t t = 1;
  bool zero_gradient = true;
};

/// sum_sq f64 [1] += sum of squares over all tensors (f32), in f64, fixed order; a NaN or infinity shows as a
/// non-finite sum.
struct grad_norm_args {
  std::span<const tensor> gradients;
  tensor sum_sq;
  tensor workspace;
};

/// factor f32 [1] = min(1, norm_max / sqrt(sum_sq)); 1 when sum_sq is 0; NaN when sum_sq is not finite, so
/// that adamw discards the step without a word from the host.
struct clip_factor_args {
  tensor sum_sq;
  float norm_max = 1;
  tensor factor;
};

/// out = x, converted between f32 and bf16 (round to nearest even; equal types copy). Same shape, outer
/// strides free.
struct convert_args {
  tensor x, out;
};

/// out = a + b, act, [T,C]; may be in place.
struct add_args {
  tensor a, b, out;
};

// ------------------------------------------------------------------------------------------------- table

/// One backend. `impl` pointers are the backend's own objects; `device`, `queue` and `event` below wrap them.
struct backend {
  uint32_t abi = backend_abi;
  const char* name = "";

  // devices. A count of 0 means: compiled in, but nothing here to run on.
  int (*device_count)() = nullptr;
  status (*open)(const device_options&, void** device) = nullptr;
  void (*close)(void* device) = nullptr;
  void (*info)(void* device, device_info& out) = nullptr;

  // memory. alloc returns memory aligned to 64 bytes, not cleared.
  status (*alloc)(void* device, uint64_t bytes, void** address) = nullptr;
  void (*free)(void* device, void* address, uint64_t bytes) = nullptr;

  // queues and events. copy: at least one side is memory of the device, the other may be host memory, which
  // must stay valid until a later wait. fill sets bytes.
  status (*open_queue)(void* device, void** queue) = nullptr;
  void (*close_queue)(void* queue) = nullptr;
  status (*copy)(void* queue, void* to, const void* from, uint64_t bytes) = nullptr;
  status (*fill)(void* queue, void* to, uint8_t value, uint64_t bytes) = nullptr;
  status (*wait)(void* queue) = nullptr; ///< until all that was enqueued is done; returns its first error
  status (*make_event)(void* device, void** event) = nullptr;
  void (*destroy_event)(void* event) = nullptr;
  status (*record)(void* queue, void* event) = nullptr;
  status (*wait_event)(void* queue, void* event) = nullptr; ///< later work of the queue waits for the event
  bool (*query)(void* event) = nullptr;                     ///< true once the recorded work is done

  // sizes
  uint64_t (*prepared_bytes)(void* device, int64_t n, int64_t k, dtype act, weight_use use) = nullptr;
  uint64_t (*linear_workspace)(void* device, const linear_args&) = nullptr;
  uint64_t (*linear_backward_input_workspace)(void* device, const linear_backward_input_args&) = nullptr;
  uint64_t (*linear_backward_weight_workspace)(void* device, const linear_backward_weight_args&) = nullptr;
  uint64_t (*embedding_backward_workspace)(void* device, const embedding_backward_args&) = nullptr;
  uint64_t (*rms_norm_backward_workspace)(void* device, const rms_norm_backward_args&) = nullptr;
  uint64_t (*attention_workspace)(void* device, const attention_args&) = nullptr;
  uint64_t (*attention_backward_workspace)(void* device, const attention_backward_args&) = nullptr;
  uint64_t (*paged_attention_workspace)(void* device, const paged_attention_args&) = nullptr;
  uint64_t (*cross_entropy_workspace)(void* device, const cross_entropy_args&) = nullptr;
  uint64_t (*sample_workspace)(void* device, const sample_args&) = nullptr;
  uint64_t (*grad_norm_workspace)(void* device, const grad_norm_args&) = nullptr;

  // operations
  status (*prepare_weight)(void* queue, const prepare_weight_args&) = nullptr;
  status (*linear)(void* queue, const linear_args&) = nullptr;
  status (*linear_backward_input)(void* queue, const linear_backward_input_args&) = nullptr;
  status (*linear_backward_weight)(void* queue, const linear_backward_weight_args&) = nullptr;
  status (*embedding)(void* queue, const embedding_args&) = nullptr;
  status (*embedding_backward)(void* queue, const embedding_backward_args&) = nullptr;
  status (*rms_norm)(void* queue, const rms_norm_args&) = nullptr;
  status (*rms_norm_backward)(void* queue, const rms_norm_backward_args&) = nullptr;
  status (*rope)(void* queue, const rope_args&) = nullptr;
  status (*attention)(void* queue, const attention_args&) = nullptr;
  status (*attention_backward)(void* queue, const attention_backward_args&) = nullptr;
  status (*kv_append)(void* queue, const kv_append_args&) = nullptr;
  status (*paged_attention)(void* queue, const paged_attention_args&) = nullptr;
  status (*swiglu)(void* queue, const swiglu_args&) = nullptr;
  status (*swiglu_backward)(void* queue, const swiglu_backward_args&) = nullptr;
  status (*cross_entropy)(void* queue, const cross_entropy_args&) = nullptr;
  status (*sample)(void* queue, const sample_args&) = nullptr;
  status (*adamw)(void* queue, const adamw_args&) = nullptr;
  status (*grad_norm)(void* queue, const grad_norm_args&) = nullptr;
  status (*clip_factor)(void* queue, const clip_factor_args&) = nullptr;
  status (*convert)(void* queue, const convert_args&) = nullptr;
  status (*add)(void* queue, const add_args&) = nullptr;
};

/// The C entry point of a backend that is loaded at run time; answers null for an ABI it does not speak.
using backend_entry = const backend* (*)(uint32_t abi);
inline constexpr const char* backend_entry_symbol = "neuroshard_backend";

/// The portable backend: plain C++, slow and readable. Always there.
const backend* reference_backend();

/// Finds a backend by name: "reference", "cpu" (the fast one where it was built, otherwise unavailable),
/// "cuda" (opens the module `libneuroshard_cuda.so` beside the program). The status says in one line why
/// there is none.
result<const backend*> find_backend(std::string_view name);

/// Makes a built-in backend known to find_backend; called once by the library that holds it, before any
/// thread starts.
void register_backend(const backend* table);

// ------------------------------------------------------------------------------------------ owning wrappers

/// An open device. Outlives its buffers, queues and events: each of them holds a share of it.
class device : public std::enable_shared_from_this<device> {
public:
  static result<std::shared_ptr<device>> open(const backend& table, const device_options& options);
  ~device();
  device(const device&) = delete;
  device& operator=(const device&) = delete;

  const backend& ops() const noexcept { return *table_; }
  const device_info& info() const noexcept { return info_; }
  void* impl() const noexcept { return impl_; }
  /// Device memory, 64-byte aligned, not cleared. Thread safe. Fails with out_of_memory past
  /// device_options::memory_bytes.
  result<buffer_ptr> alloc(uint64_t bytes);
  /// Bytes of all live allocations, and the most there ever were.
  uint64_t allocated() const noexcept;
  uint64_t allocated_peak() const noexcept;

private:
  struct account;
  device(const backend& table, void* impl);
  const backend* table_;
  void* impl_;
  device_info info_;
  std::shared_ptr<account> account_;
  uint64_t memory_limit_ = 0;
};
using device_ptr = std::shared_ptr<device>;

/// An ordered queue of work on a device (a CUDA stream; on the CPU the calling thread and the pool). Used by
/// one thread at a time.
class queue {
public:
  static result<std::unique_ptr<queue>> open(device_ptr on);
  ~queue();
  queue(const queue&) = delete;
  queue& operator=(const queue&) = delete;

  void* impl() const noexcept { return impl_; }
  const backend& ops() const noexcept { return on_->ops(); }
  const device_ptr& on() const noexcept { return on_; }
  status copy(void* to, const void* from, uint64_t bytes) { return ops().copy(impl_, to, from, bytes); }
  status fill(void* to, uint8_t value, uint64_t bytes) { return ops().fill(impl_, to, value, bytes); }
  status wait() { return ops().wait(impl_); }
  status record(event& e);
  status wait(event& e);

private:
  queue(device_ptr on, void* impl) : on_(std::move(on)), impl_(impl) {}
  device_ptr on_;
  void* impl_;
};

/// A point in a queue that other queues and the host can wait for.
class event {
public:
  static result<std::unique_ptr<event>> make(device_ptr on);
  ~event();
  event(const event&) = delete;
  event& operator=(const event&) = delete;

  void* impl() const noexcept { return impl_; }
  bool done() const { return on_->ops().query(impl_); }

private:
  event(device_ptr on, void* impl) : on_(std::move(on)), impl_(impl) {}
  device_ptr on_;
  void* impl_;
};

} // namespace neuroshard::kernels
